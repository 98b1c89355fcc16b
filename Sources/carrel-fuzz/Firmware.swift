import Devices

/// What a guest may do to the firmware configuration device.
let firmwareTargets: [String: FuzzTarget] = [
  "fw-cfg": { bytes, count in FirmwareFuzzing.run(input(bytes, count)) }
]
