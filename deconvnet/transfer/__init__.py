"""Transfer: features of frozen layers, a new classifier upon them, and the paper's protocol to measure it by."""
