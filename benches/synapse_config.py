#!/usr/bin/env python3
"""Writes a benchmark homeserver.yaml for Synapse into a new directory.

usage: synapse_config.py DIR PORT sqlite|postgres BCRYPT_ROUNDS [PG_SOCKET_DIR PG_PORT]
Rate limits off, open registration, no federation traffic, presence on.
"""
import json
import pathlib
import secrets
import subprocess
import sys

d = pathlib.Path(sys.argv[1]).resolve()
port, engine, rounds = int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
d.mkdir(parents=True, exist_ok=True)

if engine == "sqlite":
    database = {"name": "sqlite3", "args": {"database": str(d / "homeserver.db")}}
else:
    database = {
        "name": "psycopg2",
        "args": {"user": "synapse", "dbname": "synapse", "host": sys.argv[5],
                 "port": int(sys.argv[6]), "cp_min": 5, "cp_max": 10},
    }

free = {"per_second": 1000000, "burst_count": 1000000}
config = {
    "server_name": "bench.test",
    "public_baseurl": f"http://127.0.0.1:{port}/",
    "pid_file": str(d / "homeserver.pid"),
    "listeners": [{"port": port, "bind_addresses": ["127.0.0.1"], "type": "http",
                   "tls": False, "x_forwarded": False,
                   "resources": [{"names": ["client"], "compress": False}]}],
    "database": database,
    "log_config": str(d / "log.yaml"),
    "media_store_path": str(d / "media"),
    "signing_key_path": str(d / "signing.key"),
    "registration_shared_secret": "bench-secret",
    "macaroon_secret_key": secrets.token_hex(16),
    "form_secret": secrets.token_hex(16),
    "report_stats": False,
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "enable_metrics": False,
    "trusted_key_servers": [],
    "suppress_key_server_warning": True,
    "federation_domain_whitelist": [],
    "presence": {"enabled": True},
    "url_preview_enabled": False,
    "max_upload_size": "50M",
    "bcrypt_rounds": rounds,
    "rc_message": free, "rc_registration": free, "rc_admin_redaction": free,
    "rc_registration_token_validity": free,
    "rc_login": {"address": free, "account": free, "failed_attempts": free},
    "rc_joins": {"local": free, "remote": free}, "rc_joins_per_room": free,
    "rc_3pid_validation": free,
    "rc_invites": {"per_room": free, "per_user": free, "per_issuer": free},
    "rc_room_creation": free, "rc_presence": {"per_user": free},
    "rc_media_create": free, "rc_user_directory": free, "rc_reports": free,
    "rc_delayed_event_mgmt": free,
    "media_upload_limits": [],
}
log = {
    "version": 1,
    "formatters": {"f": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "formatter": "f",
                          "filename": str(d / "homeserver.log")}},
    "root": {"level": "WARNING", "handlers": ["file"]},
    "disable_existing_loggers": False,
}
(d / "homeserver.yaml").write_text(json.dumps(config, indent=1))  # JSON is YAML
(d / "log.yaml").write_text(json.dumps(log))
key = d / "signing.key"
if not key.exists():
    key.write_text(subprocess.check_output(
        [str(pathlib.Path(sys.executable).with_name("generate_signing_key"))], text=True))
