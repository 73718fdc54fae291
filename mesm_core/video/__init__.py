"""Video files: properties, frames chosen by time, scaling, and cutting. Needs only PyAV and NumPy."""
