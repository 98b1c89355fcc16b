import DeviceModel
import Devices
import KVM

/// The sixteen ISA interrupt lines, with room for PCI beside the ISA device on
/// those that PCI interrupts may be routed to.
final class InterruptWiring {
  private var lines: [any InterruptLine] = []
  private(set) var pciInputs: [Int: any InterruptLine] = [:]
  private var junctions: [InterruptJunction] = []

  init(_ kvm: KVMMachine) {
    for number in 0..<16 {
      let input = InterruptInput(kvm, number: UInt32(number))
      if [0, 1, 2, 8, 13].contains(number) {
        lines.append(input)
      } else {
        let junction = InterruptJunction(output: input)
        junctions.append(junction)
        lines.append(junction.makeInput())
        pciInputs[number] = junction.makeInput()
      }
    }
  }

  /// The line of an ISA device, 0 … 15.
  func line(_ number: Int) -> any InterruptLine { lines[number & 15] }
}
