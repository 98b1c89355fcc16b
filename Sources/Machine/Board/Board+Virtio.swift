import DeviceModel
import Devices
import LinuxSystem

extension Board {
  /// PCI device numbers of virtio cards.
  enum VirtioSlot {
    static let entropy = 15
    /// Disks from here on.
    static let disks = 16
    static let maximumDisks = 8
  }

  /// Every virtio device of the machine, one line each.
  static func addVirtioDevices(
    to cards: VirtioCards, _ configuration: MachineConfiguration, _ drives: Drives
  ) throws {
    if configuration.hasEntropy {
      try cards.add("rng", at: VirtioSlot.entropy) {
        VirtioEntropy(source: HostEntropy(), state: $0)
      }
    }
    for (index, disk) in drives.virtioDisks.enumerated() {
      try cards.add("disk\(index)", at: VirtioSlot.disks + index) {
        VirtioBlock(backend: disk.image, serial: disk.serial, queues: disk.queues, state: $0)
      }
    }
  }
}

/// The host kernel's random numbers.
private final class HostEntropy: EntropySource {
  func bytes(_ count: Int) -> [UInt8] { RandomBytes.make(count) }
}
