import Devices

/// What a guest may do to the firmware configuration device and to flash.
let firmwareTargets: [String: FuzzTarget] = [
  "fw-cfg": { bytes, count in FirmwareFuzzing.run(input(bytes, count)) },
  "flash": { bytes, count in
    precondition(FlashFuzzing.run(input(bytes, count)), "the chip left its array")
  },
]
