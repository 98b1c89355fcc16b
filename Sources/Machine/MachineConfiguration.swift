import Devices
import Disk

/// What a machine consists of and starts from.
public struct MachineConfiguration: Sendable {
  /// What the processor executes first.
  public enum Boot: Sendable {
    /// SeaBIOS, which boots from `bootOrder`.
    case firmware
    /// UEFI, which boots from `bootOrder`, with its variables in a file; `nil` forgets
    /// them with the machine.
    case uefi(variables: String?)
    /// An ELF kernel, started through its PVH entry or the Linux 64-bit protocol, or a
    /// bzImage, started at its 64-bit entry or, having none, its 32-bit one. SeaBIOS starts
    /// a bzImage with neither in real mode, and any `underFirmware`.
    case kernel(
      path: String, initialRAMDisk: String?, commandLine: String, underFirmware: Bool = false)
    /// A raw image mapped so that it ends at 4 GiB, where the reset vector is.
    case rom(path: String)
  }

  public struct Disk: Hashable, Sendable {
    /// What the guest's driver talks to.
    public enum Bus: String, CaseIterable, Hashable, Sendable {
      case ide
      case virtio
    }

    /// How the image's bytes are laid out. It is never guessed from contents, which a guest
    /// may have written.
    public enum Format: String, Hashable, Sendable {
      case raw
      case qcow2
    }

    /// An image that another one is based on.
    public struct Base: Hashable, Sendable {
      public var path: String
      public var format: Format

      public init(path: String, format: Format) {
        self.path = path
        self.format = format
      }
    }

    public var path: String
    public var format: Format
    /// What a qcow2 image is made over when it is not there yet.
    public var base: Base?
    /// Where images that it is based on may be, beside its own directory.
    public var baseDirectories: [String] = []
    public var isReadOnly: Bool
    public var bus: Bus
    /// At most 20 characters; `nil` for one made from the disk's number.
    public var serial: String?
    /// How many request queues a virtio disk has.
    public var queues: Int
    public var limits = DiskLimits()

    public init(
      path: String, format: Format = .raw, isReadOnly: Bool = false, bus: Bus = .ide,
      serial: String? = nil, queues: Int = 1
    ) {
      self.path = path
      self.format = format
      self.isReadOnly = isReadOnly
      self.bus = bus
      self.serial = serial
      self.queues = queues
    }
  }

  /// A virtio network card.
  public struct Network: Hashable, Sendable {
    /// What its cable leads to.
    public enum Backend: Hashable, Sendable {
      /// Nothing: the link is down.
      case none
      /// This host's network through passt, without rights of its own.
      case user
      /// A TAP interface of this host, for bridges.
      case tap(String)
      /// A Unix stream socket that speaks passt's protocol.
      case socket(String)
    }

    public var backend: Backend
    /// `nil` for one that follows from the machine's UUID.
    public var address: MACAddress?
    /// Pairs of queues; a TAP interface that can have several has as many of its own.
    public var queues: Int
    /// Whether a guest of `user` reaches this host's own services, also those that listen
    /// on its loopback, and whatever else is at its addresses.
    public var reachesHost = true

    public init(_ backend: Backend, address: MACAddress? = nil, queues: Int = 1) {
      self.backend = backend
      self.address = address
      self.queues = queues
    }
  }

  /// A channel between a program of the guest and one of the host.
  public struct Channel: Hashable, Sendable {
    /// By which the guest finds it, such as `org.qemu.guest_agent.0`.
    public var name: String
    /// A Unix socket that is listened at, for one program at a time.
    public var path: String

    public init(name: String, path: String) {
      self.name = name
      self.path = path
    }
  }

  /// Sockets between programs of the guest and of the host.
  public struct Vsock: Hashable, Sendable {
    /// The guest's number (CID), 3 or more.
    public var identifier: UInt32
    /// A Unix socket that is listened at for programs that want to talk with the guest;
    /// those that the guest talks with listen at this path, `_` and their port.
    public var path: String

    public init(identifier: UInt32, path: String) {
      self.identifier = identifier
      self.path = path
    }
  }

  /// The graphics card.
  public enum Display: Hashable, Sendable {
    case none
    /// A standard VGA with Bochs VBE.
    case standard
    /// The same, and a virtio card with one to four outputs for guests that have its driver.
    case virtio(outputs: Int)
  }

  /// What the guest's sound comes from, and where it goes.
  public struct Audio: Hashable, Sendable {
    public enum Card: String, Hashable, Sendable {
      /// The speaker remains.
      case none
      /// As the chipset of old has it: every operating system knows it.
      case ac97
      case virtio
    }

    public var card: Card
    /// A WAVE file that sound is written to; displays hear it whether there is one or not.
    public var wave: String?

    public init(_ card: Card = .ac97, wave: String? = nil) {
      self.card = card
      self.wave = wave
    }
  }

  public enum BootDevice: Character, Hashable, Sendable {
    case disk = "c"
    case cdrom = "d"
  }

  /// Where the first serial port leads.
  public enum Serial: Hashable, Sendable {
    case none
    case standardStreams
    /// A file that output is written to, or a character device.
    case file(String)
    /// A Unix socket that is listened at; one peer at a time.
    case socket(String)
  }

  /// Which processor the guest finds.
  public enum ProcessorPolicy: Hashable, Sendable, Codable, CustomStringConvertible {
    /// What this host and its KVM offer.
    case host
    /// The same on every host that can be it.
    case baseline(CPUBaseline)

    /// `host`, or a baseline's name.
    public init?(_ name: String) {
      if name == "host" {
        self = .host
      } else if let baseline = CPUBaseline(rawValue: name) {
        self = .baseline(baseline)
      } else {
        return nil
      }
    }

    public var description: String {
      switch self {
      case .host: "host"
      case .baseline(let baseline): baseline.rawValue
      }
    }
  }

  /// A file in the firmware configuration device.
  public struct FirmwareFile: Hashable, Sendable {
    public var name: String
    public var bytes: [UInt8]
    /// Where the bytes came from, if they are read again when the guest asks.
    public var path: String?

    public init(name: String, bytes: [UInt8], path: String? = nil) {
      self.name = name
      self.bytes = bytes
      self.path = path
    }
  }

  public var name = "carrel"
  /// What the guest finds in its system tables.
  public var uuid = MachineUUID.random()
  /// RAM in bytes: a multiple of 4 KiB, at least 1 MiB.
  public var memory: UInt64 = 512 << 20
  public var processors = 1
  public var processorPolicy = ProcessorPolicy.host
  public var boot = Boot.firmware
  public var disks: [Disk] = []
  public var cdrom: String?
  public var bootOrder: [BootDevice] = [.disk, .cdrom]
  public var display = Display.standard
  /// Video memory in bytes: a power of two from 1 MiB.
  public var videoMemory = 16 << 20
  public var serial = Serial.none
  public var networks: [Network] = []
  public var channels: [Channel] = []
  public var vsock: Vsock?
  public var audio = Audio()
  /// Whether there is a virtio entropy device.
  public var hasEntropy = true
  /// Whether there is a virtio memory balloon.
  public var hasBalloon = true
  /// Whether there is a USB controller with a tablet and a keyboard.
  public var hasUSB = false
  public var firmwareFiles: [FirmwareFile] = []
  /// Where SeaBIOS and the VGA BIOS are installed.
  public var firmwareDirectory = "/usr/share/seabios"
  /// Where UEFI (OVMF) is installed.
  public var uefiDirectory = "/usr/share/OVMF"
  /// A guest that resets itself ends the machine.
  public var endsOnReset = false
  /// A guest that cannot go on ends the machine; otherwise it is paused until a reset.
  public var endsWhenStuck = false
  /// Text from the debug console (port 0x402) goes to standard error.
  public var showsDebugConsole = false

  public init() {}

  /// - Throws: kind `configuration`, for what no machine can be.
  public func validate() throws(MachineError) {
    guard memory >= 1 << 20, memory % 4096 == 0 else {
      throw MachineError(
        .configuration, "memory of \(memory) bytes cannot be: give at least 1M, in whole pages")
    }
    guard memory <= 1 << 40 else {
      throw MachineError(.configuration, "memory is limited to 1T, not \(memory) bytes")
    }
    guard (1...64).contains(processors) else {
      throw MachineError(.configuration, "\(processors) CPUs cannot be: give 1 to 64")
    }
    guard (1 << 20...256 << 20).contains(videoMemory), videoMemory & (videoMemory - 1) == 0 else {
      throw MachineError(
        .configuration,
        "video memory of \(videoMemory) bytes cannot be: give a power of two, 1M to 256M")
    }
    if case .virtio(let outputs) = display,
      !(1...VirtioGPU.maximumOutputs).contains(outputs)
    {
      throw MachineError(
        .configuration,
        "\(outputs) outputs cannot be: give 1 to \(VirtioGPU.maximumOutputs)")
    }
    var names: Set<String> = []
    for file in firmwareFiles {
      guard FirmwareContents.isName(file.name) else {
        throw MachineError(
          .configuration, "\"\(file.name)\" cannot be a fw_cfg file's name",
          remedy: "give it \(FirmwareContents.maximumNameLength) printable characters at most")
      }
      guard names.insert(file.name).inserted else {
        throw MachineError(
          .configuration, "there are two fw_cfg files of the name \"\(file.name)\"",
          remedy: "give each a name of its own")
      }
    }
    try validateDisks()
    try validateNetworks()
    try validateChannels()
    if let vsock, !(3...UInt32.max - 1).contains(vsock.identifier) {
      throw MachineError(
        .configuration, "\(vsock.identifier) cannot be a guest's CID: give 3 to 4294967294")
    }
  }

  private func validateChannels() throws(MachineError) {
    guard channels.count <= VirtioConsole.maximumChannels else {
      throw MachineError(
        .configuration, "there is room for \(VirtioConsole.maximumChannels) channels")
    }
    for channel in channels {
      let name = channel.name
      guard (1...60).contains(name.utf8.count), name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
      else {
        throw MachineError(
          .configuration, "\"\(name)\" cannot be a channel's name",
          remedy: "give it 1 to 60 printable characters")
      }
      guard channels.filter({ $0.name == name }).count == 1 else {
        throw MachineError(
          .configuration, "there are two channels of the name \"\(name)\"",
          remedy: "give each a name of its own")
      }
    }
  }

  private func validateNetworks() throws(MachineError) {
    guard networks.count <= Board.VirtioSlot.maximumNetworks else {
      throw MachineError(
        .configuration, "there is room for \(Board.VirtioSlot.maximumNetworks) network cards")
    }
    for network in networks where !(1...VirtioNet.maximumPairs).contains(network.queues) {
      throw MachineError(
        .configuration,
        "\(network.queues) pairs of queues cannot be: give 1 to \(VirtioNet.maximumPairs)")
    }
  }

  private func validateDisks() throws(MachineError) {
    guard disks.filter({ $0.bus == .ide }).count <= 3 else {
      throw MachineError(
        .configuration, "the IDE controllers have room for three disks beside the CD-ROM",
        remedy: "attach more with bus=virtio")
    }
    guard disks.filter({ $0.bus == .virtio }).count <= Board.VirtioSlot.maximumDisks else {
      throw MachineError(
        .configuration, "there is room for \(Board.VirtioSlot.maximumDisks) virtio disks")
    }
    for disk in disks {
      guard (1...VirtioBlock.maximumQueues).contains(disk.queues) else {
        throw MachineError(
          .configuration,
          "\(disk.queues) queues cannot be: give 1 to \(VirtioBlock.maximumQueues)")
      }
      let serial = disk.serial ?? "-"
      guard (1...20).contains(serial.utf8.count),
        serial.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
      else {
        throw MachineError(
          .configuration, "\"\(serial)\" cannot be a disk's serial number",
          remedy: "give it 1 to 20 printable characters")
      }
      do {
        try disk.limits.validate()
      } catch {
        throw MachineError(.configuration, error.context)
      }
    }
  }
}
