import Devices
import KVM
import LinuxSystem

/// What a board is assembled upon: KVM's part of a machine, in the order in which it is
/// quickest to make, and the memories that guest code reaches. It knows nothing yet of which
/// machine it will be.
struct BoardCore {
  let firmware: BoardFirmware
  let system: KVMSystem
  let kvm: KVMMachine
  let memory: MachineMemory
  let addresses: AddressSpace
  let videoMemory: MappedMemory?
  let renderedSurface: MappedMemory?
  let processorModel: ProcessorModel
  let cpus: [VirtualCPU]
  /// States of vCPUs and kernel devices as they are after power-on.
  let powerOn: PowerOnState

  /// - Parameters:
  ///   - stored: what RAM begins with.
  ///   - host: what is known of the host already.
  init(
    _ configuration: MachineConfiguration, _ firmware: BoardFirmware, saved: BoardArchive,
    stored: StoredMemory?, host: HostOffer? = nil
  ) throws {
    self.firmware = firmware
    // Memory first: slots made before the interrupt controllers cost a tenth.
    system = try host?.system ?? KVMSystem()
    kvm = try system.makeMachine()
    try kvm.setExitsOnEmulationFailure()
    try kvm.setRealModePages(
      tss: PhysicalMap.realModeTSS, identityMap: PhysicalMap.identityMap)
    memory = try MachineMemory(size: configuration.memory, kvm: kvm, stored: stored)
    addresses = AddressSpace(layout: memory.layout, kvm: kvm)
    if let rom = firmware.rom { try memory.mapROM(rom) }
    if configuration.display != .none {
      let video = try MappedMemory(name: "carrel-vram", size: configuration.videoMemory)
      renderedSurface = try MappedMemory(name: "carrel-screen", size: VGA.minimumSurfaceSize)
      try addresses.place(
        video, at: UInt64(PhysicalMap.videoMemory(size: configuration.videoMemory)))
      videoMemory = video
    } else {
      videoMemory = nil
      renderedSurface = nil
    }

    // PIC, IOAPIC, local APICs and interval timer, in the kernel.
    try kvm.makeInterruptControllers()
    try kvm.setRouting(InterruptInput.routes)
    try kvm.makeTimer()
    processorModel = try ProcessorModel(
      configuration.processorPolicy,
      offered: try host?.processor ?? ProcessorModel.offered(by: system),
      saved: try saved.state("processor-model"))
    cpus = try Self.makeCPUs(configuration.processors, kvm, processorModel)
    powerOn = try host?.powerOn ?? PowerOnState(kvm, cpus)
  }

  private static func makeCPUs(_ count: Int, _ kvm: KVMMachine, _ model: ProcessorModel)
    throws(KVMError) -> [VirtualCPU]
  {
    var cpus: [VirtualCPU] = []
    for identifier in 0..<count {
      let cpu = try kvm.makeVCPU(identifier: UInt32(identifier))
      try cpu.setCPUID(model.leaves(processor: identifier, of: count).map(\.entry))
      cpus.append(cpu)
    }
    return cpus
  }
}

/// What firmware there is of a board, and what is told to it: the same for all machines of
/// one make.
struct BoardFirmware {
  /// Ends at 4 GiB.
  let rom: MemoryMapping?
  /// The VGA BIOS.
  let optionROM: [UInt8]
  let acpi: ACPITables

  init(_ configuration: MachineConfiguration, _ boot: BootMedium) throws {
    rom = try boot.rom.map { try MachineMemory.makeROM($0.bytes) }
    // A kernel that is entered at once is beyond the point at which firmware would run it.
    optionROM =
      boot.kernel == nil && configuration.display != .none
      ? try FirmwareImage.vgaBIOS(
        of: configuration.display, in: configuration.firmwareDirectory
      ).bytes : []
    acpi = ACPITables(
      .init(
        processors: configuration.processors,
        pciMemory: UInt32(PhysicalMap.lowLimit)...UInt32(PhysicalMap.pciEnd - 1),
        timerOnPin2: true))
  }
}

/// What KVM told once, and tells the same every time, of this host and of machines with one
/// configuration.
struct HostOffer {
  let system: KVMSystem
  let processor: [CPUIDLeaf]
  let powerOn: PowerOnState
}
