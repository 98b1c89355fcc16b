import Devices
import Disk

/// A processor of a machine, as its supervisor sees it.
public struct ProcessorDescription: Hashable, Sendable {
  public let index: Int
  /// The kernel's number of the thread that runs it.
  public let threadIdentifier: Int
}

/// A drive of a machine and what is in it.
public struct DriveDescription: Hashable, Sendable {
  public struct Medium: Hashable, Sendable {
    public let path: String
    public let size: UInt64
    public let isReadOnly: Bool
    /// The image and what it is based on, from the top.
    public let layers: [LayerDescription]
    public let limits: DiskLimits
  }

  /// As QEMU names such a drive: `ide0-hd0`, `ide1-cd0`.
  public let name: String
  public let isRemovable: Bool
  /// The guest locked the tray.
  public let isLocked: Bool
  public let isTrayOpen: Bool
  public let medium: Medium?
}

extension Machine {
  /// Plugs a network card's cable in, or pulls it.
  ///
  /// - Parameter name: `net0`, `net1`, … in the order of configuration.
  /// - Returns: `false` when there is no such card.
  public func setLink(_ name: String, isUp: Bool) -> Bool {
    board.lock.withLock {
      for (index, card) in board.virtio.networks.enumerated() where name == "net\(index)" {
        card.setLink(isUp)
        return true
      }
      return false
    }
  }

  /// The CD-ROM drive's name.
  public static let cdromName = DrivePlace.cdrom.name

  /// All processors; none once the machine is torn down.
  public var processorDescriptions: [ProcessorDescription] {
    board.lock.withLock {
      processors.enumerated().compactMap { index, processor in
        processor.threadIdentifier.map {
          ProcessorDescription(index: index, threadIdentifier: Int($0))
        }
      }
    }
  }

  public var driveDescriptions: [DriveDescription] {
    transition.withLock {
      let limits = board.lock.withLock { board.drives.diskLimits }
      var drives = zip(zip(board.drives.diskImages, board.drives.diskLayers), limits).map {
        DriveDescription(
          name: $0.0.name, isRemovable: false, isLocked: false,
          isTrayOpen: false,
          medium: .init(
            path: $0.0.path, size: $0.0.size, isReadOnly: $0.0.isReadOnly, layers: $0.1,
            limits: $1))
      }
      let (isLocked, isOpen) = board.lock.withLock {
        (board.cdrom?.isLocked == true, board.cdrom?.isTrayOpen == true)
      }
      let medium = board.drives.medium.map {
        DriveDescription.Medium(
          path: $0.path, size: $0.byteCount, isReadOnly: true, layers: $0.layers,
          limits: DiskLimits())
      }
      drives.append(
        DriveDescription(
          name: DrivePlace.cdrom.name, isRemovable: true, isLocked: isLocked, isTrayOpen: isOpen,
          medium: medium))
      return drives
    }
  }

  /// Limits a disk's requests from now on, also those that wait already.
  ///
  /// - Throws: kind `configuration` for limits that cannot be, and for a drive that is no disk.
  public func limitDisk(_ name: String, to limits: DiskLimits) throws(MachineError) {
    do {
      try limits.validate()
    } catch {
      throw MachineError(.configuration, error.context)
    }
    try transition.withLock { () throws(MachineError) in
      guard status != .ended else { throw Self.isOver }
      let disk = try board.drives.throttle(of: name)
      board.lock.withLock { disk.limits = limits }
    }
  }

  /// Opens the tray of the CD-ROM drive and takes the medium out.
  ///
  /// - Parameter force: although the guest locked the tray.
  /// - Throws: kind `state` when it is locked; the guest is told of the wish then.
  public func eject(force: Bool = false) throws(MachineError) {
    try transition.withLock { () throws(MachineError) in
      guard status != .ended else { throw Self.isOver }
      guard board.lock.withLock({ board.cdrom?.eject(force: force) }) == true else {
        throw Self.isLocked
      }
      board.drives.replaceMedium(with: nil)
    }
  }

  /// Puts an image into the CD-ROM drive, in place of what is there; the guest finds out
  /// by the drive's unit attention.
  ///
  /// - Throws: kind `image` when it cannot be opened, with the medium left as it was;
  ///   kind `state` when the guest locked the tray.
  public func changeMedium(to path: String, force: Bool = false) throws(MachineError) {
    try transition.withLock { () throws(MachineError) in
      guard status != .ended else { throw Self.isOver }
      let image: RawImage
      do {
        image = try board.drives.openMedium(path)
      } catch {
        throw MachineError(.image, "the medium could not be changed", cause: error)
      }
      let isOpen = board.lock.withLock {
        guard board.cdrom?.eject(force: force) == true else { return false }
        board.cdrom?.setMedium(image)
        return true
      }
      guard isOpen else {
        image.close()
        throw Self.isLocked
      }
      board.drives.replaceMedium(with: image)
    }
  }

  /// On the control thread: where the tray is now.
  func tellOfTray() {
    let isOpen = board.lock.withLock { board.cdrom?.isTrayOpen == true }
    announce(.trayMoved(drive: DrivePlace.cdrom.name, isOpen: isOpen))
  }

  private static var isLocked: MachineError {
    MachineError(
      .state, "the guest locked the tray of \(cdromName)", remedy: "eject it there, or force it")
  }

  /// Raises a non-maskable interrupt at every processor, as a dump switch does: where the
  /// local APIC lets it through (LINT1 as NMI, Intel SDM volume 3, 11.5.1).
  public func injectNMI() throws(MachineError) {
    do {
      try whileParked {
        for cpu in board.cpus where try cpu.takesNMI() { try cpu.injectNMI() }
      }
    } catch let error as MachineError {
      throw error
    } catch {
      throw MachineError(.host, "no NMI could be injected", cause: error)
    }
  }
}
