resource "oci_queue_queue" "orders" {
  count = var.order_queue ? 1 : 0

  compartment_id = var.compartment_id
  display_name   = "orders"
  # More than OCI_QUEUE_DELIVERIES_MAX (4): what nobody can take is in our own dead letters by then.
  dead_letter_queue_delivery_count = 8
  retention_in_seconds             = 604800
  visibility_in_seconds            = 60
}

resource "oci_identity_policy" "queue" {
  count = var.order_queue ? 1 : 0

  compartment_id = var.compartment_id
  name           = "payment-service-queue"
  description    = "The payment service takes orders from its queue."
  statements = [
    for what in ["read queues", "use queue-pull"] :
    join(" ", compact([
      "Allow ${var.principal} to ${what} in compartment id ${var.compartment_id}",
      var.principal_condition == "" ? "" : "where ${var.principal_condition}",
    ]))
  ]
}
