import DeviceModel
import Devices
import Disk
import KVM
import LinuxSystem
import Snapshot

/// The motherboard: every part, where it sits, and what it is wired to.
///
/// Built once, from nothing or from a saved state, and owned by `lock` from then
/// on. `init` reads top to bottom as the board is assembled.
final class Board {
  let lock: Lock
  private(set) var configuration: MachineConfiguration
  let system: KVMSystem
  let kvm: KVMMachine
  let memory: MachineMemory
  let addresses: AddressSpace
  let clock: MachineClock
  let control = ControlRelay()
  let tone = ToneRelay()
  let callingProcessor = PortCaller()
  let processorModel: ProcessorModel
  let cpus: [VirtualCPU]
  let pci: PCIHost
  let power: PowerManagement
  let keyboardController: I8042
  let pointer: VMwareBackdoor
  let keys: KeySequence
  private let input = InputSinks()
  let serial: UART16550
  let drives: Drives
  let ide: IDEController
  let virtio: VirtioCards
  let audio: AudioMixer
  let microphone = Microphone()
  private let soundCard: AC97?
  let usb: USBController?
  let display: (any DisplayAdapter)?
  let graphics: VirtioGPU?
  let vga: VGA?
  let videoMemory: MappedMemory?
  let renderedSurface: MappedMemory?
  /// What the graphics card keeps pictures in.
  let graphicsMemory: MappedMemory?
  let acpi: ACPITables
  private(set) var smbios: SMBIOSTables
  let generation: GenerationIdentifier
  private let firmware: FirmwareConfiguration
  let boot: BootMedium
  private let flash: FlashMemory?
  private let isaBridge: ISABridge
  private let wiring: InterruptWiring
  private var parts: [BoardPart] = []
  /// Since somebody saved the machine.
  var changes: MemoryChanges?
  private var coalescesDisplayWrites = false
  private var portCoalescing: PortCoalescing
  /// What never changes: states of vCPUs and kernel devices at power-on.
  private let powerOn: PowerOnState

  static let isaBridgeSlot = PCISlot(device: 1, function: 0)
  static let powerManagementSlot = PCISlot(device: 1, function: 3)
  static let displaySlot = PCISlot(device: 2)
  static let soundSlot = PCISlot(device: 4)

  /// Assembles a board that is connected to nothing of the host yet but its disks.
  ///
  /// - Parameters:
  ///   - lock: held by the caller until the board is complete, memory contents included:
  ///     drives that were saved in mid-transfer go on at once.
  ///   - diskSizes: of disks whose images come with `connect`; `nil` when they are there.
  init(
    _ configuration: MachineConfiguration, lock: Lock, boot: BootMedium, core: BoardCore,
    saved: BoardArchive = BoardArchive(), livedNanoseconds: UInt64 = 0,
    diskSizes: [UInt64]? = nil
  ) throws {
    self.lock = lock
    self.configuration = configuration
    self.boot = boot

    // Memory, interrupt controllers and processors.
    system = core.system
    kvm = core.kvm
    portCoalescing = PortCoalescing(core.kvm)
    memory = core.memory
    addresses = core.addresses
    videoMemory = core.videoMemory
    renderedSurface = core.renderedSurface
    processorModel = core.processorModel
    cpus = core.cpus
    powerOn = core.powerOn
    clock = MachineClock(lock: lock, now: livedNanoseconds)
    wiring = InterruptWiring(kvm)

    // Flash, in front of the firmware's ROM.
    flash = try Self.placeFlash(boot, memory, addresses, try saved.state("flash"))

    // Host bridge, ISA bridge, power management.
    let ports = addresses.ports
    isaBridge = ISABridge(interrupts: wiring.pciInputs, state: try saved.state("isa-bridge"))
    pci = PCIHost(
      addressSpace: addresses, interruptRouter: isaBridge, state: try saved.state("pci"))
    let hostBridge = HostBridge(shadow: nil, state: try saved.state("host-bridge"))
    let resetControl = ResetControl(machine: control, state: try saved.state("reset-control"))
    pci.resetControl = resetControl
    power = PowerManagement(
      interrupt: wiring.line(9), clock: clock, machine: control, state: try saved.state("power"))
    try ports.map(pci, name: "PCI configuration", at: 0xCF8, size: 8)
    try ports.map(power.commandPorts, name: "APM", at: 0xB2, size: 2)

    // Firmware configuration, clock and CMOS RAM.
    acpi = core.firmware.acpi
    smbios = FirmwareTables.smbios(configuration, memory.layout)
    let generation = GenerationIdentifier(
      value: MachineUUID.random().bytes, memory: memory,
      changed: { [power] in
        power.raise(generalEvent: PowerManagement.GeneralEvent.generationChanged)
      }, state: try saved.state("generation"))
    self.generation = generation
    let firmware = FirmwareConfiguration(
      contents: try FirmwareTables.contents(
        configuration, memory.layout, acpi, smbios, generation, kernel: boot.firmwareKernel),
      memory: memory,
      source: FirmwareFiles(configuration.firmwareFiles, generation: generation),
      state: try saved.state("fw-cfg"))
    self.firmware = firmware
    firmware.onWrite = { [unowned firmware] name in
      guard name == GenerationIdentifier.addressFile else { return }
      generation.place(asWritten: firmware.contents(of: name) ?? [])
    }
    let realTimeClock = RealTimeClock(
      interrupt: wiring.line(8), clock: clock,
      nvram: FirmwareTables.cmos(configuration, memory.layout), state: try saved.state("rtc"))
    try ports.map(firmware, name: "fw_cfg", at: 0x510, size: 12)
    try ports.map(realTimeClock, name: "RTC", at: 0x70, size: 2)

    // Keyboard controller, absolute pointer, port 0x92.
    let keyboardController = I8042(
      machine: control, clock: clock, keyboardInterrupt: wiring.line(1),
      auxiliaryInterrupt: wiring.line(12), state: try saved.state("i8042"))
    self.keyboardController = keyboardController
    pointer = VMwareBackdoor(
      processor: callingProcessor,
      nudge: { [unowned keyboardController] in
        keyboardController.nudgeMouse()
      }, state: try saved.state("vmmouse"))
    keys = KeySequence(
      clock: clock,
      deliver: { [input] key, isPressed in input.deliver(.key(key, pressed: isPressed))
      }, state: try saved.state("keys"))
    let portA = SystemControlPortA(machine: control, state: try saved.state("port-92"))
    try ports.map(keyboardController.dataPort, name: "keyboard data", at: 0x60, size: 1)
    try ports.map(keyboardController.commandPort, name: "keyboard command", at: 0x64, size: 1)
    try ports.map(pointer, name: "vmmouse", at: 0x5658, size: 4)
    try ports.map(portA, name: "system control A", at: 0x92, size: 1)

    // Speaker, on channel 2 of the interval timer.
    audio = AudioMixer(clock: clock)
    let speakerTimer = SpeakerChannel(kvm)
    let speaker = PCSpeaker(
      timer: speakerTimer, clock: clock, sink: audio.makeVoice(),
      state: try saved.state("speaker"))
    let portB = SystemControlPortB(
      timer: speakerTimer,
      speaker: { [tone] in
        tone.onTone($0)
        speaker.setOn($0 != nil)
      }, state: try saved.state("port-61"))
    try ports.map(portB, name: "system control B", at: 0x61, size: 1)

    // Serial port, debug console, POST codes.
    serial = UART16550(
      interrupt: wiring.line(4), backend: nil, clock: clock, state: try saved.state("serial"))
    try ports.map(serial, name: "COM1", at: 0x3F8, size: 8)
    let console = DebugConsole(isShown: configuration.showsDebugConsole)
    try ports.map(
      DebugPort(readValue: 0xE9) { console.put($0) }, name: "debug console", at: 0x402, size: 1)
    try ports.map(DebugPort(readValue: nil) { _ in }, name: "POST code", at: 0x80, size: 1)

    // IDE controller with its drives.
    drives = try Drives(configuration, lock: lock, clock: clock, diskSizes: diskSizes)
    ide = IDEController(
      attachments: drives.attachments, memory: memory,
      interrupts: (primary: wiring.line(14), secondary: wiring.line(15)),
      state: try saved.state("ide"))
    try ports.map(ide.primary.commandBlock, name: "IDE 1", at: 0x1F0, size: 8)
    try ports.map(ide.primary.controlBlock, name: "IDE 1 control", at: 0x3F6, size: 1)
    try ports.map(ide.secondary.commandBlock, name: "IDE 2", at: 0x170, size: 8)
    try ports.map(ide.secondary.controlBlock, name: "IDE 2 control", at: 0x376, size: 1)

    // Sound card; one that is a virtio device comes with those.
    soundCard =
      configuration.audio.card == .ac97
      ? AC97(
        memory: memory, clock: clock, sink: audio.makeVoice(), lineIn: microphone.makeEar(),
        microphone: microphone.makeEar(), state: try saved.state("ac97")) : nil

    // Display.
    if let videoMemory, let renderedSurface {
      let adapter = try VGA(
        videoMemory: videoMemory, renderedSurface: renderedSurface, clock: clock,
        optionROM: core.firmware.optionROM,
        state: try saved.state("vga"))
      try ports.map(adapter.ports, name: "VGA", at: 0x3B0, size: 48)
      try ports.map(adapter.extensionPorts, name: "VBE", at: 0x1CE, size: 4)
      try addresses.memory.map(
        adapter.window, name: "VGA window", at: PhysicalMap.legacyVideo,
        size: PhysicalMap.legacyVideoSize)
      vga = adapter
    } else {
      vga = nil
    }

    // Virtio devices, which sit on PCI alone.
    virtio = try VirtioCards(kvm, memory, lock: lock, saved: saved)
    try Self.addVirtioDevices(
      to: virtio, configuration, drives, clock, (audio, microphone))
    if case .virtio(let outputs) = configuration.display, let vga {
      let memory = try MappedMemory(name: "carrel-gpu", size: VirtioGPU.memorySize)
      let card = try virtio.add("gpu", at: Self.displaySlot, extend: vga.addMemory(to:)) {
        VirtioGPU(memory: memory, outputs: outputs, state: $0)
      }
      graphicsMemory = memory
      graphics = card
      display = VirtioVGA(vga, card)
    } else {
      graphicsMemory = nil
      graphics = nil
      display = vga
      if let vga { pci.insert(vga.function, at: Self.displaySlot) }
    }

    // USB, for guests that have drivers for nothing else.
    usb =
      configuration.hasUSB
      ? try USBController(memory, virtio.makeMessages(), clock, saved: saved) : nil
    input.sinks = virtio.inputSinks + [pointer] + (usb?.inputSinks ?? []) + [keyboardController]
    addresses.onRegisters = { [unowned virtio] target, base in
      if let target = target as? any DoorbellTarget { virtio.doorbells.moved(target, to: base) }
    }

    // Everything that sits on PCI bus 0.
    pci.insert(hostBridge.function, at: PCISlot(device: 0))
    pci.insert(isaBridge.function, at: Self.isaBridgeSlot)
    pci.insert(ide.function, at: PCISlot(device: 1, function: 1))
    pci.insert(power.function, at: Self.powerManagementSlot)
    if let soundCard { pci.insert(soundCard.function, at: Self.soundSlot) }
    if let usb { pci.insert(usb.controller.function, at: USBController.slot) }
    for (slot, card) in virtio.cards { pci.insert(card.function, at: slot) }

    parts = [
      BoardPart("host-bridge", hostBridge), BoardPart("isa-bridge", isaBridge),
      BoardPart("pci", pci), BoardPart("reset-control", resetControl),
      BoardPart("power", power), BoardPart("fw-cfg", firmware),
      BoardPart("generation", generation), BoardPart("rtc", realTimeClock),
      BoardPart("i8042", keyboardController), BoardPart("vmmouse", pointer),
      BoardPart("keys", keys),
      BoardPart("port-92", portA), BoardPart("port-61", portB),
      BoardPart("speaker", speaker), BoardPart("serial", serial), BoardPart("ide", ide),
    ]
    if let soundCard { parts.append(BoardPart("ac97", soundCard)) }
    if let vga { parts.append(BoardPart("vga", vga)) }
    if let flash { parts.append(BoardPart("flash", flash)) }
    cdrom?.onTrayMove = { [control] in control.onTrayMove() }
    parts += virtio.parts + (usb?.parts ?? [])
    try coalesceDisplayWrites(true)
  }

  deinit {
    pci.removeAll()
    // PCI is on a bus of the address space that it maps its functions in.
    addresses.ports.unmapAll()
    addresses.memory.unmapAll()
  }

  /// Connects devices with what they lead to on the host. Device lock held, guest code has
  /// not run.
  func connect(_ links: HostLinks) {
    if let sound = links.sound { audio.add(sound) }
    serial.connect(links.line)
    for (card, cable) in zip(virtio.networks, links.cables) { card.connect(cable) }
    for (index, channel) in links.channels.enumerated() { virtio.console?.connect(index, channel) }
    if let sockets = links.sockets, let vsock = configuration.vsock {
      virtio.vsock?.connect(identifier: vsock.identifier, sockets)
    }
  }

  /// Has the machine be the one that this configuration describes, of the same make. Device
  /// lock held, guest code has not run.
  func rename(_ configuration: MachineConfiguration) {
    self.configuration = configuration
    smbios = FirmwareTables.smbios(configuration, memory.layout)
    firmware.renew(
      FirmwareTables.ownContents(configuration, smbios),
      source: FirmwareFiles(configuration.firmwareFiles, generation: generation))
  }

  // MARK: Operation, device lock held

  /// Puts the machine to where it is after power-on. vCPUs parked.
  func reset() throws {
    drainCoalescedWrites()
    for part in parts { part.reset() }
    try powerOn.restore(kvm, cpus)
    try prepareBoot()
  }

  /// What a machine finds when it starts: firmware in its segments, or a kernel
  /// and a chipset as firmware would have left it.
  func prepareBoot() throws {
    boot.rom?.shadow(into: memory)
    guard let kernel = boot.kernel, let cpu = cpus.first else { return }
    let base = PhysicalMap.videoMemory(size: configuration.videoMemory)
    PlatformSetup.run(
      pci, isaBridge: Self.isaBridgeSlot, powerManagement: Self.powerManagementSlot,
      io: PhysicalMap.pciPorts, memory: base..<UInt32(PhysicalMap.pciEnd))
    keyboardController.setUp()
    try kernel.load(
      into: memory, cpu: cpu, tables: acpi, smbios: smbios, generation: generation)
  }

  var cdrom: ATAPIDrive? { ide.cdrom(at: DrivePlace.cdrom.channel * 2 + DrivePlace.cdrom.unit) }

  /// Another generation identifier in guest memory, and the guest's notice of it.
  func changeGeneration(to identifier: MachineUUID) {
    generation.change(to: identifier.bytes)
  }

  func saveDevices() throws -> BoardArchive {
    var archive = BoardArchive()
    for part in parts { try part.save(&archive) }
    try archive.store(processorModel.saveState(), as: "processor-model")
    return archive
  }

  /// The names of the devices that are saved.
  var deviceNames: Set<String> { Set(parts.map(\.name)) }

  /// Whether writes to the legacy video window and VGA registers may pile up in KVM until
  /// somebody looks, rather than leave guest mode one by one. They may from the start.
  func coalesceDisplayWrites(_ on: Bool) throws(KVMError) {
    guard kvm.canCoalesceWrites, on != coalescesDisplayWrites else { return }
    let window = KVMMachine.CoalescedZone.memory(
      PhysicalMap.legacyVideo, size: UInt32(PhysicalMap.legacyVideoSize))
    if on {
      try kvm.coalesceWrites(window)
    } else {
      try portCoalescing.stopForDisplay()
      try kvm.stopCoalescingWrites(window)
    }
    coalescesDisplayWrites = on
  }

  /// A write to a port that left guest mode.
  func notePortWrite(_ port: UInt16) {
    portCoalescing.note(port, includesDisplay: coalescesDisplayWrites)
  }

  /// Carries out writes that KVM let pile up.
  func drainCoalescedWrites(of cpu: VirtualCPU) {
    cpu.drainCoalescedWrites { address, isPort, width, value in
      (isPort ? addresses.ports : addresses.memory)
        .write(address: address, width: width, value: value)
    }
  }

  /// The ring is one for all vCPUs.
  func drainCoalescedWrites() {
    if let cpu = cpus.first { drainCoalescedWrites(of: cpu) }
  }

  /// Pages of video memory that changed since the last call, but for writes that pile
  /// up in KVM.
  func takeDirtyVideoMemory() -> DirtyPages {
    var pages = DirtyPages(pageCount: (videoMemory?.bytes.count ?? 0) / DirtyPages.pageSize)
    do {
      try addresses.takeDirtyVideoMemory(into: &pages)
    } catch {
      // Without the log everything may have changed.
      pages = DirtyPages(pageCount: pages.words.count * 64, allDirty: true)
    }
    return pages
  }

  func deliver(_ event: InputEvent) { input.deliver(event) }
}
