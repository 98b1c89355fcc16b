import DeviceModel

/// What answers behind a base address register.
package enum PCIRegionBacking {
  /// Registers in the I/O port space.
  case io(any BusTarget)
  /// Registers, or a ROM, in memory space: every access is an exit.
  case memory(any BusTarget)
  /// Memory that vCPUs reach without an exit (a memory slot with dirty log).
  case videoMemory(any SharedBytes)
}

/// A block of address space that a function decodes at the base the guest chose.
package struct PCIRegion {
  package let name: String
  /// In bytes, a power of two.
  package let size: UInt64
  package let backing: PCIRegionBacking

  package var isIO: Bool {
    if case .io = backing { return true }
    return false
  }
}

/// Where PCI functions appear to the CPU: the port and memory buses of the
/// machine. `Machine` implements it; `PCIHost` alone calls it, with the device
/// lock held, on a vCPU thread or while the machine is built.
package protocol PCIAddressSpace: AnyObject {
  /// Makes `region` answer at `address ..< address + region.size`.
  ///
  /// `address` is a multiple of the size, and neither 0 nor at the very end of the
  /// space (the host filters those), but otherwise whatever the guest wrote.
  /// - Returns: whether it is mapped now. `false`, with nothing changed, when the
  ///   range overlaps RAM or anything else; the host tries again after each
  ///   change of mappings.
  func map(_ region: PCIRegion, at address: UInt64) -> Bool

  /// Undoes a `map` that returned `true`.
  func unmap(_ region: PCIRegion, at address: UInt64)
}

/// Where the INTx pins of bus 0 end. The host calls it on every change of a pin,
/// device lock held.
package protocol PCIInterruptRouter: AnyObject {
  /// Sets pin `pin` (0 for INTA# … 3 for INTD#) of device number `device`.
  /// Functions of one device that share a pin were already combined.
  func setInterrupt(device: Int, pin: Int, asserted: Bool)
}

/// Device and function number on bus 0.
package struct PCISlot: Hashable, Sendable, Codable {
  package let device: Int
  package let function: Int

  package init(device: Int, function: Int = 0) {
    self.device = device & 31
    self.function = function & 7
  }
}
