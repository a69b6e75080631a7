//! Adversity on purpose.
