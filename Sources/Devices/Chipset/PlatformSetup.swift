import DeviceModel

/// What firmware does to the chipset, for a machine that starts a kernel directly:
/// gives PCI base addresses their places, routes interrupts, places the power
/// management registers.
package enum PlatformSetup {
  /// Call once all functions are inserted, after each reset and not after a restore.
  ///
  /// - Parameters:
  ///   - io: ports for I/O regions.
  ///   - memory: addresses below 4 GiB for memory regions.
  package static func run(
    _ host: PCIHost, isaBridge: PCISlot, powerManagement: PCISlot,
    io: Range<UInt32>, memory: Range<UInt32>
  ) {
    for (index, line) in ISABridge.conventionalRoutes.enumerated() {
      host.writeConfiguration(isaBridge, offset: 0x60 + index, width: 1, value: UInt32(line))
    }
    host.writeConfiguration(
      powerManagement, offset: 0x40, width: 4, value: UInt32(PowerManagement.defaultBase) | 1)
    host.writeConfiguration(powerManagement, offset: 0x80, width: 1, value: 1)
    var ports = io
    var addresses = memory
    for slot in host.slots {
      guard let function = host.function(at: slot) else { continue }
      assign(function, at: slot, on: host, ports: &ports, addresses: &addresses)
    }
  }

  private static func assign(
    _ function: PCIFunction, at slot: PCISlot, on host: PCIHost,
    ports: inout Range<UInt32>, addresses: inout Range<UInt32>
  ) {
    var decode: UInt32 = 0
    for bar in function.bars where bar.window == nil && !bar.isROM {
      let size = UInt32(truncatingIfNeeded: bar.size)
      guard let base = bar.isIO ? take(size, from: &ports) : take(size, from: &addresses)
      else { continue }
      host.writeConfiguration(slot, offset: bar.register, width: 4, value: base)
      decode |= bar.isIO ? 1 : 2
    }
    let pin = Int(function.identity.interruptPin)
    if pin > 0 {
      let request = ISABridge.interruptRequest(device: slot.device, pin: pin - 1)
      host.writeConfiguration(
        slot, offset: PCIRegister.interruptLine, width: 1,
        value: UInt32(ISABridge.conventionalRoutes[request]))
    }
    let command = host.readConfiguration(slot, offset: PCIRegister.command, width: 2)
    host.writeConfiguration(
      slot, offset: PCIRegister.command, width: 2, value: command | decode)
  }

  private static func take(_ size: UInt32, from range: inout Range<UInt32>) -> UInt32? {
    let (raised, overflow) = range.lowerBound.addingReportingOverflow(size - 1)
    let base = raised & ~(size - 1)
    guard !overflow, base <= range.upperBound, range.upperBound - base >= size else { return nil }
    range = base + size..<range.upperBound
    return base
  }
}
