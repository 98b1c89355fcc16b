import DeviceModel
import KVM

/// An input of the interrupt controllers, by global interrupt number.
///
/// The level is kept here because the kernel is only told of changes.
final class InterruptInput: InterruptLine {
  private let kvm: KVMMachine
  private let number: UInt32
  private var level = false

  init(_ kvm: KVMMachine, number: UInt32) {
    self.kvm = kvm
    self.number = number
  }

  func setLevel(_ asserted: Bool) {
    guard asserted != level else { return }
    level = asserted
    // It fails only for a number that has no route; all that are made here have.
    try? kvm.setInterruptLine(gsi: number, asserted: asserted)
  }

  /// PIC and IOAPIC side by side, the timer on IOAPIC pin 2 as the MADT says.
  static var routes: [(gsi: UInt32, route: KVMMachine.InterruptRoute)] {
    var routes: [(gsi: UInt32, route: KVMMachine.InterruptRoute)] = []
    for number in UInt32(0)..<24 {
      if number < 8 {
        routes.append((number, .masterPIC(pin: number)))
      } else if number < 16 {
        routes.append((number, .slavePIC(pin: number - 8)))
      }
      if number == 0 {
        routes.append((0, .ioAPIC(pin: 2)))
      } else if number != 2 {
        routes.append((number, .ioAPIC(pin: number)))
      }
    }
    return routes
  }
}
