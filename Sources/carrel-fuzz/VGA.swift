import Devices

/// What a guest may do to the display adapter.
let displayTargets: [String: FuzzTarget] = [
  "vga": { bytes, count in
    precondition(VGAFuzzing.run(input(bytes, count)).isSound, "the adapter left its memory")
  }
]
