import CMachine

/// One I/O port. Ring 3 may use them all: the task's permission bitmap is open.
struct Port {
  let number: UInt16

  init(_ number: UInt16) { self.number = number }

  var byte: UInt8 {
    get { port_in8(number) }
    nonmutating set { port_out8(number, newValue) }
  }

  var word: UInt16 {
    get { port_in16(number) }
    nonmutating set { port_out16(number, newValue) }
  }

  var long: UInt32 {
    get { port_in32(number) }
    nonmutating set { port_out32(number, newValue) }
  }
}

/// The legacy interrupt lines that the desktop listens to.
struct Interrupts: OptionSet {
  let rawValue: UInt32

  static let timer = Interrupts(rawValue: 1 << 0)
  static let keyboard = Interrupts(rawValue: 1 << 1)
  static let serial = Interrupts(rawValue: 1 << 4)
  static let clock = Interrupts(rawValue: 1 << 8)
  static let acpi = Interrupts(rawValue: 1 << 9)
  static let mouse = Interrupts(rawValue: 1 << 12)

  /// Sleeps until an interrupt is pending, and takes all that are.
  static func wait() -> Interrupts { Interrupts(rawValue: wait_for_interrupts()) }

  /// Takes what is pending without sleeping.
  static func take() -> Interrupts { Interrupts(rawValue: take_interrupts()) }

  /// Opens these lines at the 8259A pair.
  func unmask() {
    let lines = UInt16(truncatingIfNeeded: rawValue)
    if lines & 0xFF != 0 { Port(0x21).byte &= ~UInt8(lines & 0xFF) }
    if lines >> 8 != 0 { Port(0xA1).byte &= ~UInt8(lines >> 8) }
  }

  /// Closes these lines.
  func mask() {
    let lines = UInt16(truncatingIfNeeded: rawValue)
    if lines & 0xFF != 0 { Port(0x21).byte |= UInt8(lines & 0xFF) }
    if lines >> 8 != 0 { Port(0xA1).byte |= UInt8(lines >> 8) }
  }
}
