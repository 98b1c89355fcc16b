import DeviceModel
import Devices
import Disk
import LinuxSystem

/// The images behind the IDE controller's drives and virtio disks.
///
/// `attachments` and `virtioDisks` are for the board's construction; after that the lock
/// of whoever changes the machine's status guards the rest.
final class Drives {
  struct VirtioDisk {
    let image: any DiskImage
    let serial: String
    let queues: Int
  }

  private var disks: [AttachedDisk] = []
  /// In front of them.
  private var throttles: [ThrottledDisk] = []
  /// Of each disk, as QEMU calls drives.
  private var names: [String] = []
  private(set) var medium: RawImage?
  private let lock: Lock
  /// Primary device 0 and 1, secondary device 0 and 1.
  private(set) var attachments: [IDEAttachment?] = [nil, nil, nil, nil]
  private(set) var virtioDisks: [VirtioDisk] = []

  /// - Parameter diskSizes: of disks whose images come with `connect`.
  init(
    _ configuration: MachineConfiguration, lock: Lock, clock: any DeviceClock,
    diskSizes: [UInt64]? = nil
  ) throws {
    self.lock = lock
    var index = 0
    for (number, disk) in configuration.disks.enumerated() {
      let size = diskSizes?.dropFirst(number).first
      let attached =
        if let size {
          AttachedDisk(
            byteCount: size, isReadOnly: disk.isReadOnly, deviceLock: { lock.withLock($0) })
        } else {
          AttachedDisk(try Self.open(disk, lock), deviceLock: { lock.withLock($0) })
        }
      let image = ThrottledDisk(
        attached, limits: disk.limits, clock: clock, deviceLock: { lock.withLock($0) })
      disks.append(attached)
      throttles.append(image)
      let serial = disk.serial ?? "CARREL\(number + 1)"
      switch disk.bus {
      case .ide:
        attach(.disk(image, serial: serial), at: .disk(index))
        names.append(DrivePlace.disk(index).name)
        index += 1
      case .virtio:
        names.append("virtio\(virtioDisks.count)")
        virtioDisks.append(VirtioDisk(image: image, serial: serial, queues: disk.queues))
      }
    }
    if let path = configuration.cdrom {
      let image = try Self.open(path, lock)
      medium = image
      attach(.cdrom(image), at: .cdrom)
    } else {
      attach(.cdrom(nil), at: .cdrom)
    }
  }

  /// Opens the images of disks that were made without. Not under the device lock.
  func open(_ configured: [MachineConfiguration.Disk]) throws -> [any DiskImage] {
    var images: [any DiskImage] = []
    do {
      for (index, (disk, attached)) in zip(configured, disks).enumerated() {
        let image = try Self.open(disk, lock)
        images.append(image)
        guard image.byteCount == attached.byteCount else {
          throw MachineError(
            .state,
            "this machine is not the one that was saved: disk \(names[index]) has "
              + "\(image.byteCount) bytes instead of \(attached.byteCount)",
            remedy: "configure it as it was")
        }
      }
    } catch {
      for image in images { image.close() }
      throw error
    }
    return images
  }

  /// Gives such disks their images. Device lock held.
  func connect(_ images: [any DiskImage], _ configured: [MachineConfiguration.Disk]) {
    for (index, (image, disk)) in zip(images, configured).enumerated() {
      throttles[index].limits = disk.limits
      disks[index].connect(image)
    }
  }

  private static func open(
    _ disk: MachineConfiguration.Disk, _ lock: Lock
  ) throws(DiskError) -> any DiskImage {
    switch disk.format {
    case .raw:
      try RawImage(
        path: disk.path, use: .disk, isReadOnly: disk.isReadOnly,
        deviceLock: { lock.withLock($0) })
    case .qcow2:
      try openOverlay(disk, lock)
    }
  }

  private static func openOverlay(
    _ disk: MachineConfiguration.Disk, _ lock: Lock
  ) throws(DiskError) -> Qcow2Disk {
    var policy = BackingPolicy(directories: disk.baseDirectories)
    if let base = disk.base {
      // Who names the base by its path allows it.
      policy.directories.append(
        base.path.lastIndex(of: "/").map { String(base.path[..<$0]) } ?? ".")
      if !Files.exists(disk.path) {
        try Qcow2Image.createOverlay(
          disk.path, over: .init(base.path, base.format == .raw ? .raw : .qcow2), policy)
      }
    }
    return try Qcow2Disk(
      path: disk.path, isReadOnly: disk.isReadOnly, policy, deviceLock: { lock.withLock($0) })
  }

  private static func open(_ path: String, _ lock: Lock) throws(DiskError) -> RawImage {
    try RawImage(path: path, use: .cdrom, isReadOnly: true, deviceLock: { lock.withLock($0) })
  }

  /// Another image for the CD-ROM drive.
  func openMedium(_ path: String) throws(DiskError) -> RawImage {
    try Self.open(path, lock)
  }

  /// The drive has this medium now; the one that it had is closed. Not under the device
  /// lock.
  func replaceMedium(with image: RawImage?) {
    let former = medium
    medium = image
    former?.close()
  }

  /// Path and size in bytes of each disk's image, in their order.
  var diskImages: [(name: String, path: String, size: UInt64, isReadOnly: Bool)] {
    zip(names, disks).map { ($0, $1.path, $1.byteCount, $1.isReadOnly) }
  }

  /// What each disk's image is made of, in their order.
  var diskLayers: [[LayerDescription]] { disks.map(\.layers) }

  /// What each disk is limited to, in their order. Device lock held.
  var diskLimits: [DiskLimits] { throttles.map(\.limits) }

  /// A hard disk.
  func disk(named name: String) throws(MachineError) -> AttachedDisk {
    disks[try index(of: name)]
  }

  /// What limits it.
  func throttle(of name: String) throws(MachineError) -> ThrottledDisk {
    throttles[try index(of: name)]
  }

  private func index(of name: String) throws(MachineError) -> Int {
    if let index = names.firstIndex(of: name), index < disks.count { return index }
    guard name != DrivePlace.cdrom.name else {
      throw MachineError(.configuration, "drive \(name) is a CD-ROM drive, not a disk")
    }
    throw MachineError(
      .configuration, "there is no disk \(name)",
      remedy: "name one of \(names.joined(separator: ", "))")
  }

  private func attach(_ attachment: IDEAttachment, at place: DrivePlace) {
    attachments[place.channel * 2 + place.unit] = attachment
  }

  /// Carries out what is under way, and makes it durable. Not under the device lock.
  func synchronize() throws(DiskError) {
    for image in throttles where !image.isReadOnly { try image.synchronize() }
  }

  /// Carries out what is under way and closes the images. Not under the device lock.
  func close() {
    for image in throttles { image.close() }
    (disks, throttles) = ([], [])
    replaceMedium(with: nil)
  }
}
