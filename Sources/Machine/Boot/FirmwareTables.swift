import Devices

/// What firmware is told about the machine.
enum FirmwareTables {
  static func contents(
    _ configuration: MachineConfiguration, _ layout: MemoryLayoutMap, _ acpi: ACPITables,
    _ smbios: SMBIOSTables, _ generation: GenerationIdentifier, kernel: FirmwareKernel?
  ) throws(MachineError) -> FirmwareContents {
    var contents = FirmwareContents()
    var ranges = [MemoryRange(base: 0, size: layout.low, kind: .ram)]
    if layout.high > 0 {
      ranges.append(MemoryRange(base: PhysicalMap.fourGiB, size: layout.high, kind: .ram))
    }
    contents.describeMemory(total: layout.total, ranges: ranges)
    contents.describeProcessors(
      count: configuration.processors, maximum: configuration.processors)
    try kernel?.install(into: &contents, layout)
    let order = (kernel == nil ? [] : [KernelROM.bootPath]) + bootOrder(configuration)
    contents.describeBoot(order: order, menuWait: nil)
    acpi.install(into: &contents)
    contents.addFile(GenerationIdentifier.pageFile, generation.page, isReread: true)
    contents.addFile(
      GenerationIdentifier.addressFile, [UInt8](repeating: 0, count: 8), isWritable: true)
    smbios.install(into: &contents)
    contents.setItem(FirmwareContents.Key.uuid, configuration.uuid.bytes)
    for file in configuration.firmwareFiles {
      guard contents.file(file.name) == nil else {
        throw MachineError(
          .configuration, "the machine itself provides the fw_cfg file \"\(file.name)\"",
          remedy: "choose another name, such as \"opt/\(file.name)\"")
      }
    }
    for file in configuration.firmwareFiles
    where !contents.addFile(file.name, file.bytes, isReread: file.path != nil) {
      throw MachineError(
        .configuration, "the machine has no room for the fw_cfg file \"\(file.name)\"",
        remedy: "give fewer files")
    }
    return contents
  }

  /// What of the contents is a machine's own among others of its make.
  static func ownContents(_ configuration: MachineConfiguration, _ smbios: SMBIOSTables)
    -> FirmwareContents
  {
    var contents = FirmwareContents()
    smbios.install(into: &contents)
    contents.setItem(FirmwareContents.Key.uuid, configuration.uuid.bytes)
    for file in configuration.firmwareFiles {
      contents.addFile(file.name, file.bytes, isReread: file.path != nil)
    }
    return contents
  }

  static func smbios(_ configuration: MachineConfiguration, _ layout: MemoryLayoutMap)
    -> SMBIOSTables
  {
    SMBIOSTables(
      .init(
        uuid: configuration.uuid.bytes, processors: configuration.processors,
        memory: layout.total,
        ranges: [0..<layout.low, PhysicalMap.fourGiB..<PhysicalMap.fourGiB + layout.high]))
  }

  static func cmos(_ configuration: MachineConfiguration, _ layout: MemoryLayoutMap)
    -> [Int: UInt8]
  {
    CMOSContents.describe(
      low: layout.low, high: layout.high, processors: configuration.processors,
      boot: configuration.bootOrder.map { $0 == .disk ? .disk : .cdrom })
  }

  /// Open Firmware paths of the drives, by `bootOrder`.
  private static func bootOrder(_ configuration: MachineConfiguration) -> [String] {
    configuration.bootOrder.flatMap { device in
      switch device {
      case .disk: diskPaths(configuration)
      case .cdrom: configuration.cdrom == nil ? [] : [DrivePlace.cdrom.openFirmwarePath]
      }
    }
  }

  private static func diskPaths(_ configuration: MachineConfiguration) -> [String] {
    var (ide, virtio) = (0, Board.VirtioSlot.disks)
    return configuration.disks.map { disk in
      switch disk.bus {
      case .ide:
        defer { ide += 1 }
        return DrivePlace.disk(ide).openFirmwarePath
      case .virtio:
        defer { virtio += 1 }
        return "/pci@i0cf8/scsi@\(String(virtio, radix: 16))/disk@0,0"
      }
    }
  }
}

/// Where drives sit: disks fill the controller from the first channel, the CD-ROM
/// is master on the second, and a third disk its slave.
enum DrivePlace: Hashable {
  case disk(Int)
  case cdrom

  var channel: Int {
    switch self {
    case .disk(let index): index / 2
    case .cdrom: 1
    }
  }

  var unit: Int {
    switch self {
    case .disk(let index): index < 2 ? index : 1
    case .cdrom: 0
    }
  }

  /// QEMU's name for a drive at that place.
  var name: String { "ide\(channel)-\(self == .cdrom ? "cd" : "hd")\(unit)" }

  var openFirmwarePath: String {
    "/pci@i0cf8/ide@1,1/drive@\(channel)/disk@\(unit)"
  }
}
