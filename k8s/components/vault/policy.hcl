# What the service's side may do in Vault: read its own entries and the password that is valid now.
path "secret/data/credenza-*" {
  capabilities = ["read"]
}

path "database/static-creds/credenza" {
  capabilities = ["read"]
}
