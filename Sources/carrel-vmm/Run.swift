import ArgumentParser
import Display
import LinuxSystem
import Machine

/// Builds a machine from the command line and runs it to its end.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Build a virtual PC and run it until it is switched off.",
    discussion: """
      Without --kernel the machine starts SeaBIOS, or with --firmware uefi OVMF, which boots from disks and CD-ROM in \
      the order of --boot. With --kernel it starts that kernel directly, or by SeaBIOS when the \
      kernel needs firmware or --firmware bios is given.

      SIGTERM and SIGINT end the machine as pulling the plug does, after writes under \
      way are finished. The exit status is 0 when the guest switched itself off (or, \
      with --no-reboot, reset itself) or somebody ended the machine, 1 when it crashed or \
      could not be started, 64 for a wrong command line.
      """)

  @Option(help: ArgumentHelp("RAM, with unit K, M (assumed), G or T.", valueName: "size"))
  var memory = ByteSize(512 << 20)

  @Option(help: "Number of processors, 1 to 64.")
  var cpus = 1

  @Option(
    help: ArgumentHelp(
      "Processor that the guest finds: what this host offers, or a named one that is the same "
        + "on every host.", valueName: "host|x86-64-v1|x86-64-v2|x86-64-v3"))
  var cpu = MachineConfiguration.ProcessorPolicy.host

  @Option(
    help: ArgumentHelp(
      "\"bios\" for SeaBIOS, \"uefi\" for OVMF, or a ROM image that is mapped to end at 4 GiB.",
      valueName: "bios|uefi|file"))
  var firmware: String?

  @Option(
    help: ArgumentHelp(
      """
      Keep UEFI's variables in this file, which is made when there is none; without it \
      they are forgotten with the machine.
      """, valueName: "file"))
  var nvram: String?

  @Option(
    help: ArgumentHelp(
      """
      Start this kernel: ELF (PVH entry, or Linux's 64-bit protocol) or bzImage (64-bit or \
      32-bit entry; by SeaBIOS in real mode when it has neither, or with --firmware bios).
      """, valueName: "file"))
  var kernel: String?

  @Option(help: ArgumentHelp("Initial RAM disk for --kernel.", valueName: "file"))
  var initrd: String?

  @Option(help: ArgumentHelp("Command line for --kernel.", valueName: "text"))
  var append: String?

  @Option(
    help: ArgumentHelp(
      """
      A raw or qcow2 image or block device as disk; up to three with bus=ide and eight with \
      bus=virtio. A qcow2 image that is not there is made over the one that over names. What a \
      qcow2 image is based on is in its own directory, or in those of bases. \
      Limits are of bytes (bps) and operations (iops) a second, of reads (-rd) and writes (-wr) \
      alone or of both, with bursts: bps-rd-max, and bps-rd-max-length for its seconds. \
      A comma in a path is doubled, here and in all options of this form.
      """,
      valueName:
        "file[,format=raw|qcow2][,over=raw|qcow2:base][,bases=dir][,bus=ide|virtio][,serial=text]"
        + "[,queues=n][,readonly=on][,bps=size][,iops=n]"
    ),
    transform: DiskArgument.init(parsing:))
  var disk: [DiskArgument] = []

  @Option(help: ArgumentHelp("An ISO image in the CD-ROM drive.", valueName: "iso"))
  var cdrom: String?

  @Option(
    help: ArgumentHelp(
      "Where firmware boots from, first choice first: c is the disks, d the CD-ROM.",
      valueName: "d,c"), transform: BootOrderArgument.init(parsing:))
  var boot: BootOrderArgument?

  @Option(
    help: ArgumentHelp(
      """
      Display adapter: standard VGA (std, the default), the same with a virtio card for \
      guests that have its driver, one to four outputs side by side, or none.
      """, valueName: "std|virtio[,outputs=n]|none"),
    transform: VideoArgument.init(parsing:))
  var vga: VideoArgument?

  @Option(
    help: ArgumentHelp(
      "Video memory, a power of two from 1M to 256M.", valueName: "size"))
  var videoMemory: ByteSize?

  @Option(
    help: ArgumentHelp(
      "The first serial port: this terminal, a Unix socket to listen at, a file for output, "
        + "or a terminal device. Ctrl-C on this terminal ends the machine.",
      valueName: "stdio|unix:path|path|none"), transform: SerialArgument.init(parsing:))
  var serial: SerialArgument?

  @Option(
    name: .customLong("fw-cfg"),
    help: ArgumentHelp(
      """
      A file in the firmware configuration device; may be given many times. A file of the \
      host is read again when the guest selects it, while it has no more than 64 KiB.
      """,
      valueName: "name=n,string=s|file=f"),
    transform: FirmwareFileArgument.init(parsing:))
  var firmwareFiles: [FirmwareFileArgument] = []

  @Option(
    help: ArgumentHelp(
      """
      A virtio network card, up to four: on this host's network through passt (user; with \
      host=off this host itself is out of reach), a TAP interface, a socket that speaks \
      passt's protocol, or without a cable (none). With queues=N it has pairs of queues, \
      and so has a TAP interface that is made here or was made with multi_queue.
      """, valueName: "user[,host=on|off]|tap:name|socket:path|none[,mac=address][,queues=n]"),
    transform: NetworkArgument.init(parsing:))
  var net: [NetworkArgument] = []

  @Option(
    help: ArgumentHelp(
      """
      A channel of that name to a program of the guest, such as org.qemu.guest_agent.0, and \
      the Unix socket where its other end is listened for; up to eight.
      """, valueName: "name=n,socket=path"),
    transform: ChannelArgument.init(parsing:))
  var channel: [ChannelArgument] = []

  @Option(
    help: ArgumentHelp(
      """
      Sockets between programs of the guest, whose number is n, and of the host: one that \
      connects to path and sends "CONNECT port" talks with that port of the guest, which \
      itself reaches port p of the host at path_p.
      """, valueName: "cid=n,socket=path"),
    transform: VsockArgument.init(parsing:))
  var vsock: VsockArgument?

  @Option(
    help: ArgumentHelp(
      """
      The sound card: AC'97, which every operating system knows (the default), virtio, or \
      none; and a WAVE file to write its sound, and the speaker's, to.
      """, valueName: "ac97|virtio|none[,wav=file]"),
    transform: AudioArgument.init(parsing:))
  var audio: AudioArgument?

  @Option(
    help: ArgumentHelp("Show the screen to VNC viewers that connect here.", valueName: "host:port"))
  var vnc: ListenAddress?

  @Option(
    help: ArgumentHelp(
      "Show the screen to display processes that connect to this Unix socket.",
      valueName: "path"))
  var displayLink: String?

  @Option(help: ArgumentHelp("Listen for QMP at this Unix socket.", valueName: "path"))
  var control: String?

  @Option(help: "The machine's name, shown by viewers.")
  var name: String?

  @Option(
    help: ArgumentHelp(
      "The machine's UUID, as the guest finds it in its system tables: by default one that "
        + "follows from --name, or without that a random one.", valueName: "uuid"))
  var uuid: MachineUUID?

  @Option(
    help: ArgumentHelp(
      "Layout by which --vnc turns characters of viewers into keys: en-us, de or fr.",
      valueName: "layout"))
  var keyboardLayout: KeyboardLayout?

  @Option(
    help: ArgumentHelp(
      "Keep vmm.json, vmm.lock and exit.json in this directory, for whoever watches the "
        + "process.", valueName: "dir"))
  var runtimeDirectory: String?

  @Option(
    help: ArgumentHelp(
      """
      Go on from where a machine of this configuration was saved by QMP's carrel-save, rather \
      than from power-on; with remove=on the file is removed before the guest runs, as is due \
      for a machine that was suspended and whose disks change from then on. With identity=new \
      it is another machine that goes on, with its own name, UUID, addresses and entropy, and \
      its network cables pulled out. All of it is checked before the guest runs, or with \
      check=first what the guest needed first the last time, and the rest while it runs. \
      With check=only nothing runs: the exit status tells whether it could, as far as that \
      can be said without opening disks and connections.
      """, valueName: "file[,remove=on|off][,identity=same|new][,check=all|first|only]"),
    transform: RestoreArgument.init(parsing:))
  var restore: RestoreArgument?

  @Flag(
    help: """
      End the machine when the guest resets itself, also by a triple fault, instead of \
      starting it anew.
      """)
  var noReboot = false

  @Option(
    help: ArgumentHelp(
      "What becomes of a guest that KVM cannot go on with: paused until it is reset, or the end.",
      valueName: "pause|end"))
  var onInternalError = InternalErrorAction.pause

  @Flag(name: .customLong("no-rng"), help: "Leave out the virtio entropy device.")
  var noEntropy = false

  @Flag(name: .customLong("no-balloon"), help: "Leave out the virtio memory balloon.")
  var noBalloon = false

  @Flag(help: "Add a USB controller with a tablet and a keyboard.")
  var usb = false

  @Flag(help: "Copy the firmware's debug messages to standard error.")
  var debugConsole = false

  func validate() throws {
    if kernel != nil && firmware != nil && firmware != "bios" {
      throw ValidationError(
        "--kernel starts without firmware, or by SeaBIOS: give --firmware bios or none.")
    }
    if nvram != nil && firmware != "uefi" {
      throw ValidationError("--nvram keeps the variables of UEFI: give --firmware uefi too.")
    }
    if kernel == nil && initrd != nil {
      throw ValidationError("--initrd is handed to a kernel: give --kernel too.")
    }
    if kernel == nil && append != nil {
      throw ValidationError("--append is a kernel's command line: give --kernel too.")
    }
    if kernel != nil && boot != nil {
      throw ValidationError(
        "--boot tells firmware where to boot from, which with --kernel is that: leave out one.")
    }
    if let devices = boot?.devices, devices.contains(.cdrom), cdrom == nil {
      throw ValidationError("--boot d boots from the CD-ROM: give --cdrom too.")
    }
    if let devices = boot?.devices, devices.contains(.disk), disk.isEmpty {
      throw ValidationError("--boot c boots from a disk: give --disk too.")
    }
    if vnc != nil && displayLink != nil {
      throw ValidationError("--vnc and --display-link both take the screen: give one of them.")
    }
    if !hasScreen && (vnc != nil || displayLink != nil) {
      throw ValidationError("--vga none leaves nothing to show: leave out --vnc or --display-link.")
    }
    if !hasScreen && videoMemory != nil {
      throw ValidationError(
        "--video-memory belongs to the display adapter that --vga none leaves out.")
    }
    if keyboardLayout != nil && vnc == nil {
      throw ValidationError(
        "--keyboard-layout is for viewers of --vnc; with --display-link the display process has it."
      )
    }
    do {
      try machineConfiguration().validate()
    } catch let error as MachineError {
      throw ValidationError(error.description)
    } catch {
      throw ValidationError("\(error)")
    }
  }

  var hasScreen: Bool { vga?.display != MachineConfiguration.Display.none }

  func machineConfiguration() throws -> MachineConfiguration {
    var configuration = MachineConfiguration()
    configuration.name = name ?? "carrel"
    configuration.uuid = uuid ?? name.map { .derived(from: $0) } ?? .random()
    configuration.memory = memory.bytes
    configuration.processors = cpus
    configuration.processorPolicy = cpu
    if let kernel {
      configuration.boot = .kernel(
        path: kernel, initialRAMDisk: initrd, commandLine: append ?? "",
        underFirmware: firmware == "bios")
    } else if firmware == "uefi" {
      configuration.boot = .uefi(variables: nvram)
    } else if let firmware, firmware != "bios" {
      configuration.boot = .rom(path: firmware)
    }
    configuration.disks = disk.map(\.disk)
    configuration.cdrom = cdrom
    configuration.networks = net.map(\.network)
    configuration.channels = channel.map(\.channel)
    configuration.vsock = vsock?.vsock
    if let audio { configuration.audio = audio.audio }
    configuration.hasEntropy = !noEntropy
    configuration.hasBalloon = !noBalloon
    configuration.hasUSB = usb
    if let boot { configuration.bootOrder = boot.devices }
    if let vga { configuration.display = vga.display }
    if let videoMemory { configuration.videoMemory = Int(clamping: videoMemory.bytes) }
    configuration.serial = serial?.serial ?? .none
    configuration.firmwareFiles = try firmwareFiles.map { try $0.load() }
    configuration.endsOnReset = noReboot
    configuration.endsWhenStuck = onInternalError == .end
    configuration.showsDebugConsole = debugConsole
    return configuration
  }

  /// What the machine is reached by.
  var ways: Session.Ways {
    Session.Ways(
      vnc: vnc, layout: keyboardLayout ?? .enUS, displayLink: displayLink, control: control)
  }

  func run() throws {
    if let restore, restore.check == .only {
      do {
        return try Machine.check(
          try machineConfiguration(), goesOnFrom: try restore.load().machine)
      } catch {
        Diagnostics.report("\(error)")
        throw ExitCode.failure
      }
    }
    // Before there is any other thread: all of them inherit the mask.
    let signals = try SignalDescriptor([.terminate, .interrupt, .hangUp])
    Signal.pipe.ignore()
    let runtime = try runtimeDirectory.map { try RuntimeDirectory($0, name: name ?? "carrel") }
    try Self.run(signals, runtime) {
      let loaded = try restore?.load()
      let machine = try Machine(
        try machineConfiguration(), from: loaded?.machine, as: restore?.identity ?? .same)
      var restoring: Restoring?
      if let restore, let loaded { restoring = Restoring(machine, restore, loaded) }
      return (try Session(machine, ways, restoring), { try restore?.consume() })
    }
  }

  /// Runs what `start` makes to its end, and leaves word of it.
  ///
  /// - Parameters:
  ///   - whenStarted: told `nil` when the guest runs, or why it does not come to that.
  ///   - start: makes the session, and says what is due before its guest runs.
  static func run(
    _ signals: SignalDescriptor, _ runtime: RuntimeDirectory?,
    whenStarted: ((any Error)?) -> Void = { _ in },
    _ start: () throws -> (Session, beforeStart: () throws -> Void)
  ) throws {
    let reason: EndReason
    do {
      let (session, beforeStart) = try start()
      reason = session.run(signals, beforeStart: beforeStart) { whenStarted(nil) }
    } catch {
      runtime?.recordExit("startup-failed", detail: "\(error)")
      Diagnostics.report("\(error)")
      whenStarted(error)
      throw ExitCode.failure
    }
    runtime?.recordExit(reason.word, detail: "\(reason)")
    switch reason {
    case .guestShutdown, .guestReset, .quit, .suspended, .signal: return
    case .tripleFault, .internalError:
      Diagnostics.report("\(reason)")
      throw ExitCode.failure
    }
  }
}
