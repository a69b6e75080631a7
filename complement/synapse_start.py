#!/usr/bin/env python3
"""Starts Synapse as the suite wants a homeserver: named by SERVER_NAME, certified by the suite's authority."""

import datetime
import json
import os
import pathlib
import secrets
import subprocess
import sys
import base64

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DATA = pathlib.Path("/data")
AUTHORITY = pathlib.Path("/complement/ca")
SERVICES = pathlib.Path("/complement/appservice")


def certify(name):
    """A key, and a certificate that the authority signs; both are written to the data directory."""
    issuer = x509.load_pem_x509_certificate((AUTHORITY / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((AUTHORITY / "ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    (DATA / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (DATA / "tls.key").write_bytes(pem)


def configure(name):
    key = DATA / "signing.key"
    if not key.exists():
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        key.write_text(f"ed25519 a_test {seed}\n")
    subprocess.check_call([sys.executable, "/synapse_config.py", str(DATA), "8008", "sqlite", "4"])
    path = DATA / "homeserver.yaml"
    config = json.loads(path.read_text())
    del config["federation_domain_whitelist"]
    resources = [{"names": ["client", "federation"], "compress": False}]
    config.update({
        "server_name": name,
        "public_baseurl": "http://127.0.0.1:8008/",
        "listeners": [
            {"port": 8008, "bind_addresses": ["0.0.0.0"], "type": "http", "tls": False, "resources": resources},
            {"port": 8448, "bind_addresses": ["0.0.0.0"], "type": "http", "tls": True, "resources": resources},
        ],
        "tls_certificate_path": str(DATA / "tls.crt"),
        "tls_private_key_path": str(DATA / "tls.key"),
        "federation_custom_ca_list": [str(AUTHORITY / "ca.crt")],
        "registration_shared_secret": "complement",
        "ip_range_blacklist": [],
        "federation_ip_range_blacklist": [],
        "app_service_config_files": sorted(str(path) for path in SERVICES.glob("*.yaml")) if SERVICES.exists() else [],
        "allow_public_rooms_over_federation": True,
        "allow_public_rooms_without_auth": True,
        "allow_device_name_lookup_over_federation": True,
        "room_list_publication_rules": [{"action": "allow"}],
        "rc_federation": {
            "window_size": 1000, "sleep_limit": 1000000, "sleep_delay": 1, "reject_limit": 1000000, "concurrent": 100,
        },
        "federation": {
            "client_timeout": "10s", "max_short_retries": 1, "max_long_retries": 1,
            "max_short_retry_delay": "1s", "max_long_retry_delay": "1s",
            "destination_min_retry_interval": "1s", "destination_retry_multiplier": 1,
            "destination_max_retry_interval": "5s",
        },
    })
    path.write_text(json.dumps(config))
    return path


def main():
    name = os.environ["SERVER_NAME"]
    certify(name)
    path = configure(name)
    os.chdir(DATA)
    os.execv(sys.executable, [sys.executable, "-m", "synapse.app.homeserver", "-c", str(path)])


main()
