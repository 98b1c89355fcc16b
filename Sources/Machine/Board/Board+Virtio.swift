import DeviceModel
import Devices
import LinuxSystem

extension Board {
  /// PCI slots of virtio cards.
  enum VirtioSlot {
    static let keyboard = PCISlot(device: 15, function: 0)
    static let tablet = PCISlot(device: 15, function: 1)
    static let entropy = PCISlot(device: 15, function: 2)
    static let balloon = PCISlot(device: 15, function: 3)
    static let console = PCISlot(device: 15, function: 4)
    static let sound = PCISlot(device: 15, function: 5)
    static let sockets = PCISlot(device: 15, function: 6)
    /// Disks from here on.
    static let disks = 16
    static let maximumDisks = 8
    /// Network cards from here on.
    static let networks = 24
    static let maximumNetworks = 4
  }

  /// Every virtio device of the machine, one line each.
  static func addVirtioDevices(
    to cards: VirtioCards, _ configuration: MachineConfiguration, _ drives: Drives,
    _ clock: any DeviceClock, _ sound: (out: AudioMixer, in: Microphone)
  ) throws {
    try cards.add("keyboard", at: VirtioSlot.keyboard) { VirtioInput(.keyboard, state: $0) }
    try cards.add("tablet", at: VirtioSlot.tablet) { VirtioInput(.tablet, state: $0) }
    if configuration.hasEntropy {
      try cards.add("rng", at: VirtioSlot.entropy) {
        VirtioEntropy(source: HostEntropy(), state: $0)
      }
    }
    if configuration.hasBalloon {
      try cards.add("balloon", at: VirtioSlot.balloon) { VirtioBalloon(clock: clock, state: $0) }
    }
    if !configuration.channels.isEmpty {
      let channels = configuration.channels.map { VirtioConsole.Channel(name: $0.name) }
      try cards.add("console", at: VirtioSlot.console) { VirtioConsole(channels, state: $0) }
    }
    if let vsock = configuration.vsock {
      try cards.add("vsock", at: VirtioSlot.sockets) {
        VirtioVsock(identifier: vsock.identifier, state: $0)
      }
    }
    if configuration.audio.card == .virtio {
      try cards.add("sound", at: VirtioSlot.sound) {
        VirtioSound(
          clock: clock, sink: sound.out.makeVoice(), source: sound.in.makeEar(), state: $0)
      }
    }
    for (index, disk) in drives.virtioDisks.enumerated() {
      try cards.add("disk\(index)", at: PCISlot(device: VirtioSlot.disks + index)) {
        VirtioBlock(backend: disk.image, serial: disk.serial, queues: disk.queues, state: $0)
      }
    }
    for (index, network) in configuration.networks.enumerated() {
      let address = configuration.address(ofNetwork: index)
      try cards.add("net\(index)", at: PCISlot(device: VirtioSlot.networks + index)) {
        VirtioNet(address: address.bytes, pairs: network.queues, backend: nil, state: $0)
      }
    }
  }
}

/// The host kernel's random numbers.
private final class HostEntropy: EntropySource {
  func bytes(_ count: Int) -> [UInt8] { RandomBytes.make(count) }
}
