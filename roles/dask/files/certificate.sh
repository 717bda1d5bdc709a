#!/bin/bash
# Makes FOLDER/tls.pem, a key and the certificate that it signs itself, and prints its fingerprint: certificate.sh FOLDER OWNER
set -euo pipefail
folder=$1 owner=$2

umask 077
new=$(mktemp --directory "$folder/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj "/CN=mlstack dask" \
  -addext keyUsage=critical,digitalSignature,keyCertSign -addext extendedKeyUsage=serverAuth,clientAuth \
  -keyout "$new/key.pem" -out "$new/certificate.pem"
cat "$new/key.pem" "$new/certificate.pem" >"$new/tls.pem"
chown "$owner" "$new/tls.pem"
chmod 0400 "$new/tls.pem"
mv "$new/tls.pem" "$folder/tls.pem"
openssl x509 -in "$folder/tls.pem" -noout -fingerprint -sha256
