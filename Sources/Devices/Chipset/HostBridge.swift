import DeviceModel

/// What the CPU sees in one of the thirteen segments below 1 MiB that the PAM
/// registers control.
package struct ShadowSegment: Sendable, Equatable {
  package var base: UInt64
  package var size: UInt64
  /// Reads go to DRAM, else to the ROM (or nothing) on the bus behind.
  package var readsRAM: Bool
  /// Writes go to DRAM, else to the bus behind.
  package var writesRAM: Bool

  package init(base: UInt64, size: UInt64, readsRAM: Bool, writesRAM: Bool) {
    self.base = base
    self.size = size
    self.readsRAM = readsRAM
    self.writesRAM = writesRAM
  }
}

/// Takes notice of the host bridge's memory attributes. `Machine` implements it.
package protocol ShadowControl: AnyObject {
  /// The segments changed. Called under the device lock, from a configuration
  /// write, `reset` and, with restored state, `init`. All thirteen are given.
  func setShadow(_ segments: [ShadowSegment])
}

/// Intel 82441FX PMC, function 0 of device 0: the host bridge of the i440FX.
package final class HostBridge: StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var function: PCIFunction.State
  }

  /// Programmable attribute map, datasheet 3.2.18. PAM0 holds the BIOS segment.
  private static let pam0 = 0x59
  private static let smram = 0x72

  package let function: PCIFunction
  private weak var shadow: (any ShadowControl)?

  package init(shadow: (any ShadowControl)?, state: State?) {
    self.shadow = shadow
    function = PCIFunction(
      name: "i440FX host bridge",
      identity: PCIIdentity(
        vendor: 0x8086, device: 0x1237, revision: 0x02, classCode: 0x060000))
    function.describe {
      // Bus master and memory space cannot be turned off here.
      $0.set(PCIRegister.command, width: 2, value: 0x0006)
      $0.set(PCIRegister.status, width: 2, value: 0x0280)
      $0.allowWrites(Self.pam0, width: 4, mask: 0x3333_3330)
      $0.allowWrites(Self.pam0 + 4, width: 3, mask: 0x33_3333)
      $0.set(Self.smram, width: 1, value: 0x02)
      $0.allowWrites(Self.smram, width: 1, mask: 0x78)
    }
    function.restore(state?.function)
    function.onConfigurationWrite = { [weak self] in
      if $0.overlaps(Self.pam0..<Self.pam0 + 7) { self?.announce() }
    }
    announce()
  }

  package func saveState() -> State { State(function: function.saveState()) }

  package func reset() {
    function.reset()
    announce()
  }

  /// The segments as the registers have them now.
  package var segments: [ShadowSegment] {
    let bytes = function.configuration.bytes
    func segment(_ base: UInt64, _ size: UInt64, _ attributes: UInt8) -> ShadowSegment {
      ShadowSegment(
        base: base, size: size, readsRAM: attributes & 1 != 0, writesRAM: attributes & 2 != 0)
    }
    var result: [ShadowSegment] = []
    for index in 0..<12 {
      let register = bytes[Self.pam0 + 1 + index / 2]
      result.append(
        segment(0xC0000 + UInt64(index) * 0x4000, 0x4000, register >> UInt8(index % 2 * 4)))
    }
    result.append(segment(0xF0000, 0x10000, bytes[Self.pam0] >> 4))
    return result
  }

  private func announce() { shadow?.setShadow(segments) }
}
