import DeviceModel

/// PCI bus 0 behind configuration mechanism #1: eight ports, at 0xCF8 on a PC.
///
/// Functions are inserted once, while the machine is built. Whatever the guest
/// writes into base addresses, at most one region answers at an address: one that
/// the address space refuses stays unmapped until its surroundings change.
package final class PCIHost: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var configurationAddress: UInt32
  }

  package let maximumAccessWidth = 4
  /// The byte at offset 1 (0xCF9): not PCI, but within the same eight ports.
  package var resetControl: (any BusTarget)?

  private let addressSpace: any PCIAddressSpace
  private let interruptRouter: any PCIInterruptRouter
  private var functions: [PCISlot: PCIFunction] = [:]
  private var order: [PCISlot] = []
  private var pinLevels: [Bool] = Array(repeating: false, count: 32 * 4)
  /// CONFADD: bit 31 enable, 23:16 bus, 15:11 device, 10:8 function, 7:2 register.
  private var configurationAddress: UInt32

  package init(
    addressSpace: any PCIAddressSpace, interruptRouter: any PCIInterruptRouter, state: State?
  ) {
    self.addressSpace = addressSpace
    self.interruptRouter = interruptRouter
    configurationAddress = state?.configurationAddress ?? 0
  }

  package func saveState() -> State { State(configurationAddress: configurationAddress) }

  /// Resets the host only; each device resets its own function.
  package func reset() { configurationAddress = 0 }

  // MARK: Building

  /// Plugs a function in and maps what its state says. A slot is used once: a
  /// second function there is refused.
  @discardableResult
  package func insert(_ function: PCIFunction, at slot: PCISlot) -> Bool {
    guard functions[slot] == nil else { return false }
    functions[slot] = function
    order.append(slot)
    function.host = self
    function.slot = slot
    mappingsChanged()
    interruptChanged(function)
    return true
  }

  package func function(at slot: PCISlot) -> PCIFunction? { functions[slot] }

  /// The slots in use, in the order of insertion.
  package var slots: [PCISlot] { order }

  // MARK: Configuration space, also for a machine that boots without firmware

  package func readConfiguration(_ slot: PCISlot, offset: Int, width: Int) -> UInt32 {
    let ones: UInt32 = width >= 4 ? .max : (1 << UInt32(width * 8)) - 1
    guard let function = functions[slot] else { return ones }
    var value = function.readConfiguration(offset, width: width)
    let header = PCIRegister.headerType - offset
    if slot.function == 0 && (0..<width).contains(header) && isMultifunction(slot.device) {
      value |= 0x80 << UInt32(header * 8)
    }
    return value & ones
  }

  package func writeConfiguration(_ slot: PCISlot, offset: Int, width: Int, value: UInt32) {
    functions[slot]?.writeConfiguration(offset & 0xFF, width: width, value: value)
  }

  private func isMultifunction(_ device: Int) -> Bool {
    order.contains { $0.device == device && $0.function != 0 }
  }

  // MARK: Ports

  package func read(offset: UInt64, width: Int) -> UInt64 {
    let offset = Int(truncatingIfNeeded: offset & 7)
    if offset == 0 && width == 4 { return UInt64(configurationAddress) }
    if offset < 4 && offset + width > 4 {
      return (0..<width).reduce(0) {
        $0 | read(offset: UInt64(offset + $1), width: 1) << UInt64($1 * 8)
      }
    }
    if offset < 4 {
      return offset == 1 ? resetControl?.read(offset: 0, width: 1) ?? .max : .max
    }
    guard let (slot, register) = selected else { return .max }
    return UInt64(readConfiguration(slot, offset: register + offset - 4, width: width))
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    let offset = Int(truncatingIfNeeded: offset & 7)
    if offset == 0 && width == 4 {
      configurationAddress = UInt32(truncatingIfNeeded: value) & 0x80FF_FFFC
      return
    }
    if offset < 4 && offset + width > 4 {
      for index in 0..<width {
        write(offset: UInt64(offset + index), width: 1, value: value >> UInt64(index * 8))
      }
      return
    }
    if offset < 4 {
      if offset == 1 { resetControl?.write(offset: 0, width: 1, value: value & 0xFF) }
      return
    }
    guard let (slot, register) = selected else { return }
    writeConfiguration(
      slot, offset: register + offset - 4, width: width, value: UInt32(truncatingIfNeeded: value))
  }

  /// The slot and register that CONFADD names, if it is enabled and on bus 0.
  private var selected: (PCISlot, Int)? {
    guard configurationAddress >> 31 == 1, (configurationAddress >> 16) & 0xFF == 0 else {
      return nil
    }
    let slot = PCISlot(
      device: Int(configurationAddress >> 11) & 31, function: Int(configurationAddress >> 8) & 7)
    return (slot, Int(configurationAddress & 0xFC))
  }

  /// Takes all functions off the bus, at the end of the machine. What a function has
  /// mapped may be the device that it belongs to, which neither would let go of.
  package func removeAll() {
    for bar in functions.values.flatMap(\.bars) { bar.mapped = nil }
    functions = [:]
    order = []
  }

  // MARK: Functions report

  /// Brings mappings in line with base addresses: first everything that moved or
  /// went away is unmapped, then whatever is wanted is offered, so that swapping two
  /// regions works and a refused one gets its chance.
  func mappingsChanged() {
    for slot in order {
      guard let function = functions[slot] else { continue }
      for bar in function.bars {
        guard let mapped = bar.mapped, function.decodedAddress(of: bar) != mapped.address else {
          continue
        }
        addressSpace.unmap(mapped.region, at: mapped.address)
        bar.mapped = nil
      }
    }
    for slot in order {
      guard let function = functions[slot] else { continue }
      for bar in function.bars where bar.mapped == nil {
        guard let address = function.decodedAddress(of: bar), let region = bar.region else {
          continue
        }
        if addressSpace.map(region, at: address) { bar.mapped = (region, address) }
      }
    }
  }

  /// Recomputes the pin of `function`, which the functions of its device may share,
  /// and tells the router of a change.
  func interruptChanged(_ function: PCIFunction) {
    let pin = function.identity.interruptPin
    guard (1...4).contains(pin) else { return }
    let device = function.slot.device
    let asserted = (0..<8).contains {
      guard let other = functions[PCISlot(device: device, function: $0)] else { return false }
      return other.identity.interruptPin == pin && other.interruptPinLevel
    }
    let index = device * 4 + Int(pin) - 1
    guard asserted != pinLevels[index] else { return }
    pinLevels[index] = asserted
    interruptRouter.setInterrupt(device: device, pin: Int(pin) - 1, asserted: asserted)
  }
}
