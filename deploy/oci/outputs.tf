output "environment" {
  description = "For the service, beside its own secrets; OCI_TENANCY, OCI_USER and OCI_AUTH_TOKEN are the user's."
  value = merge(
    {
      EVENT_PUBLISHER_TYPE = "oci-streaming"
      EVENT_CONSUMER_TYPE  = var.order_queue ? "oci-queue" : "oci-streaming"
      OCI_REGION           = var.region
      OCI_STREAM_POOL_ID   = oci_streaming_stream_pool.payments.id
      TOPIC_PREFIX         = var.topic_prefix
      TOPIC_PARTITIONS     = tostring(var.partitions)
      ORDER_TOPICS         = join(",", sort(var.order_topics))
      EVENT_ALIASES        = tostring(var.event_aliases)
    },
    var.order_queue ? {
      OCI_QUEUE_ID       = oci_queue_queue.orders[0].id
      OCI_QUEUE_ENDPOINT = oci_queue_queue.orders[0].messages_endpoint
    } : {},
    local.with_vault ? { OCI_ENCRYPTION_KEY_SECRET_ID = oci_vault_secret.encryption_key[0].id } : {},
  )
}

output "bootstrap_servers" {
  description = "The pool's own Kafka endpoint; the service derives the region's shared one from OCI_REGION."
  value       = oci_streaming_stream_pool.payments.kafka_settings[0].bootstrap_servers
}
