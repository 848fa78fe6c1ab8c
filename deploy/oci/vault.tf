locals {
  with_vault = nonsensitive(var.encryption_key != "")
}

resource "oci_kms_vault" "payments" {
  count = local.with_vault ? 1 : 0

  compartment_id = var.compartment_id
  display_name   = "payment-service"
  vault_type     = "DEFAULT"
}

resource "oci_kms_key" "secrets" {
  count = local.with_vault ? 1 : 0

  compartment_id      = var.compartment_id
  display_name        = "payment-service-secrets"
  management_endpoint = oci_kms_vault.payments[0].management_endpoint
  protection_mode     = "HSM"

  key_shape {
    algorithm = "AES"
    length    = 32
  }
}

resource "oci_vault_secret" "encryption_key" {
  count = local.with_vault ? 1 : 0

  compartment_id = var.compartment_id
  vault_id       = oci_kms_vault.payments[0].id
  key_id         = oci_kms_key.secrets[0].id
  secret_name    = "payment-service-encryption-key"
  description    = "ENCRYPTION_KEY. After a new version: restart the workers, then `payment-service keys rotate`."

  secret_content {
    content_type = "BASE64"
    content      = base64encode(var.encryption_key)
  }

  lifecycle {
    # Without it no stored token can be opened again.
    prevent_destroy = true
  }
}

resource "oci_identity_policy" "secret" {
  count = local.with_vault ? 1 : 0

  compartment_id = var.compartment_id
  name           = "payment-service-secret"
  description    = "The payment service reads its key."
  statements = [
    join(" ", [
      "Allow ${var.principal} to read secret-bundles in compartment id ${var.compartment_id} where",
      var.principal_condition == "" ? "target.secret.id = '${oci_vault_secret.encryption_key[0].id}'" :
      "all {target.secret.id = '${oci_vault_secret.encryption_key[0].id}', ${local.conditions}}",
    ])
  ]
}

locals {
  # The inside of all {...}, so that another condition can stand beside it.
  conditions = trimsuffix(trimprefix(replace(var.principal_condition, "all {", "all{"), "all{"), "}")
}
