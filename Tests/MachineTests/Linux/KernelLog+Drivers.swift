extension KernelLog {
  static let input =
    KnownLine.always(
      "the machine's input devices",
      "input: Power Button as /devices/LNXSYSTM:00/LNXPWRBN:00/*",
      "input: Sleep Button as /devices/LNXSYSTM:00/LNXSLPBN:00/*",
      "input: Carrel virtio keyboard as /devices/pci0000:00/*",
      "input: Carrel virtio tablet as /devices/pci0000:00/*",
      "input: AT Translated Set 2 keyboard as /devices/platform/i8042/serio0/*",
      "input: VirtualPS/2 VMware VMMouse as /devices/platform/i8042/serio1/*",
      "input: PC Speaker as /devices/platform/pcspkr/*",
      "input: Carrel Carrel USB * as /devices/pci0000:00/0000:00:0e.0/usb1/*",
      "hid-generic 0003:#:#.#: input: USB HID v#.# * on usb-0000:00:0e.0-#/input0")
    + KnownLine.sometimes(
      "the machine's input devices",
      "input: AT Raw Set 2 keyboard as /devices/platform/i8042/serio0/*",
      "input: ImExPS/2 Generic Explorer Mouse as /devices/platform/i8042/serio1/*",
      "input: Carrel USB * as /devices/pci0000:00/0000:00:0e.0/usb1/*")
    + KnownLine.always(
      "the keyboard's controller",
      "i8042: PNP: PS/2 Controller [PNP0303:KBD,PNP0f13:MOU] at 0x60,0x64 irq 1,12",
      "serio: i8042 KBD port at 0x60,0x64 irq 1",
      "serio: i8042 AUX port at 0x60,0x64 irq 12")
    + KnownLine.sometimes(
      "the keyboard's controller",
      "mousedev: PS/2 mouse device common for all mice")

  static let graphics =
    KnownLine.always(
      "the screen's driver, and its console",
      "bochs-drm 0000:00:02.0: vgaarb: deactivate vga console",
      "ACPI: bus type drm_connector registered",
      "[drm] Found bochs VGA, ID 0xb0c5.",
      "[drm] Framebuffer size # kB @ #, mmio @ #.",
      "[drm] Found EDID data blob.",
      "[drm] Initialized bochs-drm 1.0.0 20130925 for 0000:00:02.0 on minor 0",
      "fbcon: *drmfb (fb0) is primary device",
      "Console: switching to colour frame buffer device #x#",
      "bochs-drm 0000:00:02.0: [drm] fb0: bochs-drmdrmfb frame buffer device")
    + KnownLine.sometimes(
      "the screen's driver, and its console",
      "virtio-pci 0000:00:02.0: vgaarb: deactivate vga console",
      "[drm] pci: virtio-vga detected at 0000:00:02.0",
      "[drm] features: *",
      "[drm] number of scanouts: #",
      "[drm] number of cap sets: 0",
      "[drm] Initialized virtio_gpu 0.1.0 0 for * on minor 0",
      "virtio-pci 0000:00:02.0: [drm] fb0: virtio_gpudrmfb frame buffer device")
    + KnownLine.sometimes(
      "a test takes the console, or its driver, from the screen",
      "Console: switching to colour dummy device 80x25")

  static let storage =
    KnownLine.always(
      "IDE's disk and CD-ROM drive",
      "scsi host#: ata_piix",
      "ata#: PATA max * cmd # ctl # bmdma # irq #",
      "ata#.00: ATA-*: *, max *",
      "ata#.00: # sectors, multi #: LBA*",
      "ata#.0#: ATAPI: *, max *",
      "scsi #:0:#:0: Direct-Access     ATA      * PQ: 0 ANSI: 5",
      "scsi #:0:#:0: CD-ROM            * PQ: 0 ANSI: 5",
      "libata version 3.00 loaded.",
      "ata_piix 0000:00:01.1: version 2.13",
      "sr #:0:#:0: Attached scsi CD-ROM sr0",
      "sr #:0:#:0: [sr0] scsi3-mmc drive: *",
      "cdrom: Uniform CD-ROM driver Revision: 3.20",
      "sd #:0:#:0: [sda] # 512-byte logical blocks: (1.05 MB/1.00 MiB)",
      "sd #:0:#:0: [sda] Write Protect is off",
      "sd #:0:#:0: [sda] Mode Sense: # # # #",
      "sd #:0:#:0: [sda] Write cache: enabled, read cache: enabled, *",
      "sd #:0:#:0: [sda] Preferred minimum I/O size 512 bytes",
      "sd #:0:#:0: [sda] Attached SCSI disk")
    + KnownLine.sometimes(
      "IDE's disk and CD-ROM drive",
      "ata#.0#: configured for *")
    + KnownLine.always(
      "virtio's disks",
      "virtio_blk virtio#: #/#/# default/read/poll queues",
      "virtio_blk virtio#: [vd*] # 512-byte logical blocks (*)")
    + KnownLine.sometimes(
      "each interrupt is raised again where a machine goes on, so that sizes are read again",
      "virtio_blk virtio#: [vd*] new size: # 512-byte logical blocks (*)")
    + KnownLine.sometimes(
      "tests mount file systems",
      "EXT4-fs (*): mounted filesystem* without journal. Quota mode: none.",
      "EXT4-fs (*): unmounting filesystem*",
      "EXT4-fs (*): mounting ext2 file system using the ext4 subsystem",
      "loop#: detected capacity change from 0 to #",
      "*: drop_caches: #")

  static let network =
    KnownLine.always(
      "protocols",
      "NET: Registered PF_NETLINK/PF_ROUTE protocol family",
      "NET: Registered PF_INET protocol family",
      "NET: Registered PF_UNIX/PF_LOCAL protocol family",
      "NET: Registered PF_INET6 protocol family",
      "NET: Registered PF_PACKET protocol family",
      "NET: Registered PF_VSOCK protocol family",
      "Segment Routing with IPv6",
      "In-situ OAM (IOAM) with IPv6",
      "sit: IPv6, IPv4 and MPLS over IPv4 tunneling driver")
    + KnownLine.sometimes(
      "protocols",
      "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready")

  static let sound =
    KnownLine.always(
      "the sound card",
      "Advanced Linux Sound Architecture Driver Initialized.",
      "ALSA device list:",
      "  \\#0: Intel 82801AA-ICH with STAC9700,83,84 at irq #",
      "snd_intel8x0 0000:00:04.0: enable KVM optimization")
    + KnownLine.sometimes(
      "the sound card",
      "  \\#0: VirtIO SoundCard at *",
      "snd_intel8x0 0000:00:04.0: intel8x0_measure_ac97_clock: measured # usecs (# samples)",
      "snd_intel8x0 0000:00:04.0: clocking to #")

  static let virtio =
    KnownLine.always(
      "the balloon tells of free pages",
      "Free page reporting enabled")
    + KnownLine.sometimes(
      "which pin of the interrupt controller a device is at",
      "virtio-pci 0000:00:#.#: enabling device (0000 -> 0002)",
      "virtio-pci 0000:00:02.0: enabling device (0000 -> 0003)")
    + KnownLine.always(
      "xHCI's driver, and what is connected",
      "xhci_hcd 0000:00:0e.0: xHCI Host Controller",
      "xhci_hcd 0000:00:0e.0: new USB bus registered, assigned bus number #",
      "xhci_hcd 0000:00:0e.0: hcc params # hci version # quirks #",
      "xhci_hcd 0000:00:0e.0: Host supports USB 3.0 SuperSpeed",
      "hub #-0:1.0: USB hub found",
      "hub #-0:1.0: # ports detected",
      "usb 1-#: new *-speed USB device number # using xhci_hcd",
      "usbcore: registered new interface driver usbhid",
      "usbhid: USB HID core driver")
    + KnownLine.sometimes(
      "xHCI's driver, and what is connected",
      "usb usb#: New USB device found, idVendor=1d6b, idProduct=#, bcdDevice= 6.01",
      "usb usb#: New USB device strings: Mfr=3, Product=2, SerialNumber=1",
      "usb usb#: Product: xHCI Host Controller",
      "usb usb#: Manufacturer: Linux 6.1.* xhci-hcd",
      "usb usb#: SerialNumber: 0000:00:0e.0")

  /// The variant for many processors.
  static let manyProcessors =
    KnownLine.sometimes(
      "how many there are, and that they were started", "smpboot: Allowing # CPUs, 0 hotplug CPUs",
      "smp: Bringing up secondary CPUs ...", "x86: Booting SMP configuration:",
      ".... node  \\#0, CPUs: *", "smp: Brought up 1 node, # CPUs",
      "smpboot: Max logical packages: 1", "smpboot: Total of # processors activated (#.# BogoMIPS)",
      "smpboot: Booting Node 0 Processor # APIC #",
      "smpboot: CPU # is now offline",
      "Freeing SMP alternatives memory: #K")
    + KnownLine.sometimes(
      "what is kept for each",
      "setup_percpu: NR_CPUS:64 nr_cpumask_bits:# nr_cpu_ids:# nr_node_ids:1",
      "percpu: Embedded # pages/cpu s# r0 d# u#", "cpuidle: using governor menu",
      "rcu: Hierarchical RCU implementation.", "rcu: Hierarchical SRCU implementation.",
      "rcu: *RCU restricting CPUs from NR_CPUS=64 to nr_cpu_ids=#.",
      "rcu: RCU calculated value of scheduler-enlistment delay is # jiffies.",
      "rcu: Adjusting geometry for rcu_fanout_leaf=16, nr_cpu_ids=#",
      "rcu: srcu_init: Setting srcu_struct sizes based on contention.",
      "rcu: *Max phase no-delay instances is #.")
    + KnownLine.sometimes(
      "KVM tells of the others' TLBs by what it keeps for steal time",
      "kvm-guest: KVM setup pv remote TLB flush", "kvm-guest: setup async PF for cpu #",
      "IPI shorthand broadcast: enabled", "kvm-clock: cpu #, msr #, secondary cpu clock")
    + KnownLine.sometimes(
      "no guest has an invariant TSC, as it may go on elsewhere",
      "tsc: Marking TSC unstable due to TSCs unsynchronized")
}
