"""Long streams with anomalies at known times, watched by the device's own logic: what alerts are worth."""
