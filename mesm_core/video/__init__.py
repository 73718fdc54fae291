"""Video files: what is in them, frames chosen by time, scaled pictures, and cutting. Needs PyAV and NumPy only."""
