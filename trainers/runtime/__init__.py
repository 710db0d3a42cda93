"""The runtime: `device.DeviceConfig` and precision, eval mode, calls of user code."""
