import DeviceModel
import Devices
import Disk
import LinuxSystem

/// The images behind the IDE controller's drives and virtio disks.
final class Drives {
  struct VirtioDisk {
    let image: RawImage
    let serial: String
    let queues: Int
  }

  private var images: [RawImage] = []
  /// Primary device 0 and 1, secondary device 0 and 1.
  private(set) var attachments: [IDEAttachment?] = [nil, nil, nil, nil]
  private(set) var virtioDisks: [VirtioDisk] = []

  init(_ configuration: MachineConfiguration, lock: Lock) throws {
    var index = 0
    for (number, disk) in configuration.disks.enumerated() {
      let image = try RawImage(
        path: disk.path, use: .disk, isReadOnly: disk.isReadOnly,
        deviceLock: { lock.withLock($0) })
      images.append(image)
      let serial = disk.serial ?? "CARREL\(number + 1)"
      switch disk.bus {
      case .ide:
        attach(.disk(image, serial: serial), at: .disk(index))
        index += 1
      case .virtio:
        virtioDisks.append(VirtioDisk(image: image, serial: serial, queues: disk.queues))
      }
    }
    if let path = configuration.cdrom {
      let image = try RawImage(
        path: path, use: .cdrom, isReadOnly: true, deviceLock: { lock.withLock($0) })
      images.append(image)
      attach(.cdrom(image), at: .cdrom)
    } else {
      attach(.cdrom(nil), at: .cdrom)
    }
  }

  private func attach(_ attachment: IDEAttachment, at place: DrivePlace) {
    attachments[place.channel * 2 + place.unit] = attachment
  }

  /// Carries out what is under way and closes the images. Not under the device lock.
  func close() {
    for image in images { image.close() }
    images = []
  }
}
