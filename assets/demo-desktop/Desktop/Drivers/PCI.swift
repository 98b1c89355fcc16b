/// PCI configuration space through mechanism 1 (PCI 3.0, section 3.2.2.3.2).
struct PCIFunction {
  let device: UInt32
  let function: UInt32

  func read(_ register: UInt32) -> UInt32 {
    select(register)
    return Port(0xCFC).long
  }

  func write(_ register: UInt32, _ value: UInt32) {
    select(register)
    Port(0xCFC).long = value
  }

  private func select(_ register: UInt32) {
    Port(0xCF8).long = 0x8000_0000 | device << 11 | function << 8 | register & 0xFC
  }

  /// The first function on bus 0 that `matches` says is the one, given its
  /// vendor/device pair. The usual places are asked first: each question costs.
  static func first(where matches: (UInt32) -> Bool) -> PCIFunction? {
    for device: UInt32 in [2, 1, 3, 4, 5, 6, 7, 8, 31] {
      for function: UInt32 in 0..<4 {
        let candidate = PCIFunction(device: device, function: function)
        let identity = candidate.read(0)
        if identity == 0xFFFF_FFFF { if function == 0 { break } else { continue } }
        if matches(identity) { return candidate }
        let isMultifunction = function > 0 || candidate.read(0x0C) & 0x80_0000 != 0
        if !isMultifunction { break }
      }
    }
    return nil
  }
}
