import DeviceModel
import Devices

/// An address space that refuses overlaps, with each other and with `ram`.
final class FakeAddressSpace: PCIAddressSpace {
  struct Mapping: Equatable {
    var name: String
    var isIO: Bool
    var address: UInt64
    var size: UInt64
  }

  var ram: Range<UInt64> = 0..<0x800_0000
  private(set) var mappings: [Mapping] = []
  private(set) var refusals = 0

  func map(_ region: PCIRegion, at address: UInt64) -> Bool {
    let range = address..<address + region.size
    let taken = mappings.contains {
      $0.isIO == region.isIO && ($0.address..<$0.address + $0.size).overlaps(range)
    }
    if taken || (!region.isIO && ram.overlaps(range)) {
      refusals += 1
      return false
    }
    mappings.append(
      Mapping(name: region.name, isIO: region.isIO, address: address, size: region.size))
    return true
  }

  func unmap(_ region: PCIRegion, at address: UInt64) {
    mappings.removeAll { $0.name == region.name && $0.address == address }
  }

  func address(of name: String) -> UInt64? { mappings.first { $0.name == name }?.address }
}

/// Notes what INTx pins did.
final class FakeRouter: PCIInterruptRouter {
  private(set) var changes: [String] = []

  func setInterrupt(device: Int, pin: Int, asserted: Bool) {
    changes.append("\(device).\(pin)=\(asserted ? 1 : 0)")
  }
}

/// 16 bytes of registers.
final class FakeRegisters: BusTarget {
  let maximumAccessWidth = 4
  var last: (offset: UInt64, value: UInt64)?

  func read(offset: UInt64, width: Int) -> UInt64 { offset }
  func write(offset: UInt64, width: Int, value: UInt64) { last = (offset, value) }
}
