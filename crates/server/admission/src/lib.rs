//! Admission: the mutating and validating steps between decoding and storing.
