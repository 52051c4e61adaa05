//! Logs, metrics and the progress lines a person sees.
