//! Round trips of every stored value.
