/// Power-off through the ACPI PM1 registers, and every known way to reset.
struct Power {
  private var eventPort: UInt16 = 0
  private var controlPort: UInt16 = 0
  private var sleepType: UInt16 = 0

  private static let powerButton: UInt16 = 1 << 8
  private static let sleepEnable: UInt16 = 1 << 13

  init(rootPointer: UInt64) {
    if !readTables(rootPointer) { readBridge() }
    guard controlPort != 0, eventPort != 0 else { return }
    Port(eventPort).word = 0xFFFF
    Port(eventPort + 2).word = Self.powerButton
    Interrupts.acpi.unmask()
  }

  /// Looks what the ACPI interrupt was about. True if the power button was pressed.
  func takePowerButton() -> Bool {
    guard eventPort != 0 else { return false }
    let status = Port(eventPort).word
    Port(eventPort).word = status
    Interrupts.acpi.unmask()
    return status & Self.powerButton != 0
  }

  func shutDown() {
    guard controlPort != 0 else { return }
    Port(controlPort).word = Port(controlPort).word & 1 | sleepType << 10 | Self.sleepEnable
  }

  func restart(_ controller: KeyboardController) {
    Port(0xCF9).byte = 0x02
    Port(0xCF9).byte = 0x06
    controller.pulseReset()
  }

  /// The FADT (ACPI 6.5, section 5.2.9) says where PM1a is; the DSDT's `_S5_`
  /// package holds the sleep type.
  private mutating func readTables(_ rootPointer: UInt64) -> Bool {
    guard let root = Self.findRoot(rootPointer) else { return false }
    let table = UInt64(PhysicalMemory.read(root + 16, as: UInt32.self))
    guard PhysicalMemory.matches("RSDT", at: table) else { return false }
    let length = min(PhysicalMemory.read(table + 4, as: UInt32.self), 4096)
    for offset in stride(from: UInt64(36), to: UInt64(length), by: 4) {
      let entry = UInt64(PhysicalMemory.read(table + offset, as: UInt32.self))
      if PhysicalMemory.matches("FACP", at: entry) { return readFixed(entry) }
    }
    return false
  }

  private mutating func readFixed(_ table: UInt64) -> Bool {
    eventPort = PhysicalMemory.read(table + 56, as: UInt16.self)
    controlPort = PhysicalMemory.read(table + 64, as: UInt16.self)
    let commandPort = PhysicalMemory.read(table + 48, as: UInt16.self)
    let enable = PhysicalMemory.read(table + 52, as: UInt8.self)
    if controlPort != 0, commandPort != 0, enable != 0, Port(controlPort).word & 1 == 0 {
      Port(commandPort).byte = enable
    }
    sleepType = Self.findSleepType(UInt64(PhysicalMemory.read(table + 40, as: UInt32.self)))
    return controlPort != 0
  }

  /// The PIIX4 power management function's own base register, without tables.
  private mutating func readBridge() {
    guard let function = PCIFunction.first(where: { $0 == 0x7113_8086 }) else { return }
    let base = UInt16(truncatingIfNeeded: function.read(0x40) & 0xFFC0)
    guard base != 0 else { return }
    eventPort = base
    controlPort = base + 4
  }

  private static func findRoot(_ hint: UInt64) -> UInt64? {
    if PhysicalMemory.matches("RSD PTR ", at: hint) { return hint }
    for address in stride(from: UInt64(0xE0000), to: 0x10_0000, by: 16)
    where PhysicalMemory.matches("RSD PTR ", at: address) {
      return address
    }
    return nil
  }

  private static func findSleepType(_ table: UInt64) -> UInt16 {
    let length = UInt64(min(PhysicalMemory.read(table + 4, as: UInt32.self), 1 << 20))
    guard PhysicalMemory.matches("DSDT", at: table), length > 48 else { return 0 }
    for address in (table + 36)..<(table + length - 12)
    where PhysicalMemory.matches("_S5_", at: address) {
      // PackageOp, package length, element count, then the first element.
      guard PhysicalMemory.read(address + 4, as: UInt8.self) == 0x12 else { continue }
      let extra = UInt64(PhysicalMemory.read(address + 5, as: UInt8.self) >> 6)
      let element = address + 7 + extra
      let first = PhysicalMemory.read(element, as: UInt8.self)
      return UInt16(first == 0x0A ? PhysicalMemory.read(element + 1, as: UInt8.self) : first) & 7
    }
    return 0
  }
}
