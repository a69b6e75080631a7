//! The server-server API: parse, call one use-case, render.
