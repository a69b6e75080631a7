//! Talking to other servers: discovery, signing keys, signed requests.
