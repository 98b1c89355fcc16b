import DeviceModel

/// What hangs on a place of an IDE channel.
package enum IDEAttachment {
  case disk(any BlockBackend, serial: String)
  /// A drive with or without a medium.
  case cdrom((any BlockBackend)?)
}

/// Intel 82371SB (PIIX3), function 1: two IDE channels at the legacy ports, with
/// bus-master DMA. Map each channel's `commandBlock` and `controlBlock`; the bus
/// master registers are BAR 4 of `function`.
package final class IDEController: StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var function: PCIFunction.State
    package var channels: [IDEChannel.State]
  }

  /// IDETIM, datasheet 2.3.9: bit 15 of each word enables the channel's ports.
  private static let timing = 0x40

  package let function: PCIFunction
  /// At 0x1F0, 0x3F6, IRQ 14.
  package let primary: IDEChannel
  /// At 0x170, 0x376, IRQ 15.
  package let secondary: IDEChannel
  /// The sixteen ports behind BAR 4.
  package let busMasterPorts: any BusTarget

  /// - Parameters:
  ///   - attachments: primary device 0 and 1, secondary device 0 and 1; `nil`, or
  ///     less than four, for places that stay empty.
  ///   - interrupts: IRQ 14 and IRQ 15.
  package init(
    attachments: [IDEAttachment?], memory: any GuestMemory,
    interrupts: (primary: any InterruptLine, secondary: any InterruptLine), state: State?
  ) {
    let function = PCIFunction(
      name: "PIIX3 IDE",
      identity: PCIIdentity(vendor: 0x8086, device: 0x7010, classCode: 0x010180))
    self.function = function
    func channel(_ index: Int, _ interrupt: any InterruptLine) -> IDEChannel {
      let saved = state?.channels.dropFirst(index).first
      let drives: [IDEDrive?] = (0..<2).map { place in
        let at = index * 2 + place
        guard attachments.indices.contains(at), let attachment = attachments[at] else {
          return nil
        }
        return Self.drive(attachment, state: saved?.drives.dropFirst(place).first ?? nil)
      }
      let busMaster = BusMaster(
        memory: memory, mayMaster: { [weak function] in function?.isBusMaster == true },
        state: saved?.busMaster)
      return IDEChannel(drives: drives, busMaster: busMaster, interrupt: interrupt, state: saved)
    }
    let primary = channel(0, interrupts.primary)
    let secondary = channel(1, interrupts.secondary)
    self.primary = primary
    self.secondary = secondary
    busMasterPorts = IDEPorts(
      maximumAccessWidth: 4,
      read: { [weak primary, weak secondary] offset, width in
        let channel = offset & 8 == 0 ? primary : secondary
        return UInt64(channel?.busMaster.read(offset & 7, width: width) ?? 0)
      },
      write: { [weak primary, weak secondary] offset, width, value in
        let channel = offset & 8 == 0 ? primary : secondary
        channel?.busMaster.write(
          offset & 7, width: width, value: UInt32(truncatingIfNeeded: value))
      })
    function.describe {
      $0.set(PCIRegister.status, width: 2, value: 0x0280)
      // As firmware leaves it: a kernel that boots without any finds its disks too.
      $0.set(Self.timing, width: 4, value: 0x8000_8000)
      $0.allowWrites(Self.timing, width: 4, mask: 0xFFFF_FFFF)
      $0.allowWrites(0x44, width: 1, mask: 0xFF)
    }
    function.addBAR(4, size: 16, .io(busMasterPorts))
    function.restore(state?.function)
  }

  private static func drive(_ attachment: IDEAttachment, state: IDEDrive.State?) -> IDEDrive {
    switch attachment {
    case .disk(let backend, let serial):
      ATADisk(backend: backend, serial: serial, state: state)
    case .cdrom(let medium): ATAPIDrive(medium: medium, state: state)
    }
  }

  package func saveState() -> State {
    State(
      function: function.saveState(), channels: [primary.saveState(), secondary.saveState()])
  }

  package func reset() {
    function.reset()
    primary.reset()
    secondary.reset()
  }

  /// The CD-ROM drive at a place (0 … 3); `nil` where there is none.
  package func cdrom(at place: Int) -> ATAPIDrive? {
    guard (0..<4).contains(place) else { return nil }
    return (place < 2 ? primary : secondary).drives[place & 1] as? ATAPIDrive
  }
}
