variable "region" {
  description = "As OCI writes it, for example ap-hyderabad-1."
  type        = string
}

variable "compartment_id" {
  description = "Where everything here is made."
  type        = string
}

variable "topic_prefix" {
  description = "TOPIC_PREFIX of the service."
  type        = string
  default     = ""
}

variable "partitions" {
  description = "TOPIC_PARTITIONS of the service. Fixed for the life of a stream, and the same for all of them."
  type        = number
  default     = 4
}

variable "order_topics" {
  description = "ORDER_TOPICS of the service; leave out those that another team's Terraform makes in this pool."
  type        = set(string)
  default     = ["orders"]
}

variable "event_aliases" {
  description = "EVENT_ALIASES of the service."
  type        = bool
  default     = false
}

variable "stream_users_group" {
  description = "The group of the user whose auth token is OCI_AUTH_TOKEN: Kafka clients sign on as a user."
  type        = string
}

variable "order_queue" {
  description = "Make a queue for orders (EVENT_CONSUMER_TYPE=oci-queue)."
  type        = bool
  default     = false
}

variable "principal" {
  description = "Who reads the queue and the secret, as a policy names it: \"dynamic-group payment-service\" (instances), or \"any-user\" with principal_condition (OKE workloads)."
  type        = string
  default     = "dynamic-group payment-service"
}

variable "principal_condition" {
  description = "What else must be so for the principal. For OKE: all {request.principal.type = 'workload', request.principal.namespace = 'payments', request.principal.service_account = 'payment-service'}."
  type        = string
  default     = ""

  validation {
    condition     = var.principal != "any-user" || var.principal_condition != ""
    error_message = "any-user without a condition would let everybody in the tenancy read the key."
  }
}

variable "encryption_key" {
  description = "ENCRYPTION_KEY of the service, kept in the vault: exactly 32 characters or 64 hexadecimal digits. Empty makes no vault. It is in Terraform's state too: keep that sealed."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = contains([0, 32, 64], length(var.encryption_key))
    error_message = "ENCRYPTION_KEY is exactly 32 characters, or 64 hexadecimal digits."
  }
}
