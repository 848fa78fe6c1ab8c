# What `payment-service topics check` looks for. Nothing is compacted and nothing is kept for more than a week on OCI
# Streaming: the payments table's changelog is refilled from PostgreSQL with what it has forgotten, the other tables
# hold the last hours alone.

locals {
  week    = 168
  weekend = 72
  day     = 24

  published = [
    "payment.created", "payment.processed", "payment.failed", "payment.refunded", "payment.requires_action",
    "payment.cancelled", "payment.unknown", "payment.disputed", "payment.refund_failed",
  ]

  kept = {
    "payment-webhooks"                   = local.weekend
    "payment-provider-stats"             = local.day
    "payment-facts"                      = local.day
    "payment-audit-anchors"              = local.week
    "payment-dead-letters"               = local.week
    "payment-service-payments-changelog" = local.weekend # TABLE_TTL_H

    "payment-service-provider_health-changelog" = local.day
    "payment-service-reconciliation-changelog"  = local.day
  }

  # Name of the topic => hours that its messages are kept.
  retention_in_hours = merge(
    { for name in var.order_topics : name => local.weekend },
    { for name in local.published : name => local.day },
    var.event_aliases ? { "payment.succeeded" = local.day } : {},
    local.kept,
  )
}

resource "oci_streaming_stream_pool" "payments" {
  compartment_id = var.compartment_id
  name           = "${var.topic_prefix}payments"

  kafka_settings {
    # A topic that somebody misspells must not come to life with one partition.
    auto_create_topics_enable = false
    log_retention_hours       = local.day
    num_partitions            = var.partitions
  }
}

resource "oci_streaming_stream" "topic" {
  for_each = local.retention_in_hours

  name               = "${var.topic_prefix}${each.key}"
  partitions         = var.partitions
  retention_in_hours = each.value
  stream_pool_id     = oci_streaming_stream_pool.payments.id

  lifecycle {
    # A stream that is made anew has lost its messages.
    prevent_destroy = true
  }
}

resource "oci_identity_policy" "streams" {
  compartment_id = var.compartment_id
  name           = "payment-service-streams"
  description    = "The payment service writes and reads its own streams."
  statements = [
    for what in ["read stream-pools", "read streams", "use stream-pull", "use stream-push"] :
    "Allow group ${var.stream_users_group} to ${what} in compartment id ${var.compartment_id}"
  ]
}
