extension KernelLog {
  static let firmware =
    KnownLine.always(
      "the tables that Carrel writes",
      "ACPI: RSDP # 000024 (v02 CARREL)",
      "ACPI: XSDT # # (v01 CARREL CARRELPC 00000001 CRRL 00000001)",
      "ACPI: FACP # 0000F4 (v03 CARREL CARRELPC 00000001 CRRL 00000001)",
      "ACPI: DSDT # # (v01 CARREL CARRELPC 00000001 CRRL 00000001)",
      "ACPI: FACS # 000040",
      "ACPI: APIC # # (v03 CARREL CARRELPC 00000001 CRRL 00000001)",
      "ACPI: SSDT # # (v01 CARREL CARRELPC 00000001 CRRL 00000001)",
      "ACPI: WAET # 000028 (v01 CARREL CARRELPC 00000001 CRRL 00000001)",
      "ACPI: Reserving * table memory at [mem #-#]")
    + KnownLine.always(
      "ACPI's interpreter takes them",
      "ACPI: Core revision #",
      "ACPI: Added _OSI(* Device)",
      "ACPI: 2 ACPI AML tables successfully acquired and loaded",
      "ACPI: Interpreter enabled")
    + KnownLine.always(
      "the power management that the machine has",
      "ACPI: PM-Timer IO Port: 0x608",
      "ACPI: PM: (supports S0 S5)",
      "ACPI: Using IOAPIC for interrupt routing",
      "ACPI: Enabled 1 GPEs in block 00 to 0F",
      "ACPI: button: Power Button [PWRF]",
      "ACPI: button: Sleep Button [SLPF]")

  /// PCI's devices by their numbers, and what Linux does about the chipset's habits.
  static let buses =
    KnownLine.always(
      "the bridge, and what it passes on",
      "PCI: Using configuration type 1 for base access",
      "PCI: Using configuration type 1 for extended access",
      "ACPI: PCI Root Bridge [PCI0] (domain 0000 [bus 00-ff])",
      "acpi PNP0A03:00: _OSC: OS supports [ExtendedConfig ASPM ClockPM Segments MSI HPX-Type3]",
      "PCI host bridge to bus 0000:00",
      "pci_bus 0000:00: root bus resource [io  0x0000-0x0cf7 window]",
      "pci_bus 0000:00: root bus resource [io  0x0d00-0xffff window]",
      "pci_bus 0000:00: root bus resource [mem 0x000a0000-0x000bffff window]",
      "pci_bus 0000:00: root bus resource [mem 0xc0000000-0xfebfffff window]",
      "pci_bus 0000:00: root bus resource [bus 00-ff]",
      "pci_bus 0000:00: resource # [io  #-# window]",
      "pci_bus 0000:00: resource # [mem #-# window]",
      "PCI: Using ACPI for IRQ routing",
      "pci_bus 0000:00: on NUMA node 0",
      "PCI: pci_cache_line_size set to 64 bytes",
      "PCI: CLS 0 bytes, default 64")
    + KnownLine.always(
      "the machine's devices: the chipset",
      "pci 0000:00:00.0: [8086:1237] type 00 class 0x060000",
      "pci 0000:00:01.0: [8086:7000] type 00 class 0x060100",
      "pci 0000:00:01.1: [8086:7010] type 00 class 0x010180",
      "pci 0000:00:01.1: BAR 4 [io  #-#]",
      "pci 0000:00:01.1: BAR # [io  #*]: legacy IDE quirk",
      "pci 0000:00:01.3: [8086:7113] type 00 class 0x068000",
      "pci 0000:00:01.3: quirk: [io  0x0600-0x063f] claimed by PIIX4 ACPI")
    + KnownLine.always(
      "the machine's devices: screen, sound, USB",
      "pci 0000:00:02.0: [1234:1111] type 00 class 0x030000",
      "pci 0000:00:04.0: [8086:2415] type 00 class 0x040100",
      "pci 0000:00:0e.0: [1b36:000d] type 00 class 0x0c0330",
      "pci 0000:00:02.0: BAR # [mem #-#* pref]",
      "pci 0000:00:02.0: BAR # [mem #-#]",
      "pci 0000:00:04.0: BAR # [io  #-#]",
      "pci 0000:00:0e.0: BAR 0 [mem #-# 64bit]",
      "pci 0000:00:02.0: Video device with shadowed ROM at [mem 0x000c0000-0x000dffff]",
      "pci 0000:00:02.0: vgaarb: setting as boot VGA device",
      "pci 0000:00:02.0: vgaarb: bridge control possible",
      "pci 0000:00:02.0: vgaarb: VGA device added: decodes=io+mem,owns=mem,locks=none",
      "vgaarb: loaded")
    + KnownLine.sometimes(
      "the machine's devices: screen, sound, USB",
      "pci 0000:00:02.0: [1af4:1050] type 00 class 0x030000")
    + KnownLine.sometimes(
      "a virtio card's video memory, for which no firmware found room",
      "pci 0000:00:02.0: BAR 0 [mem #-# pref]: assigned")
    + KnownLine.always(
      "the machine's devices: virtio, by the numbers of their kinds",
      "pci 0000:00:#.#: [1af4:1042] type 00 class 0x010000",
      "pci 0000:00:#.#: [1af4:1043] type 00 class 0x078000",
      "pci 0000:00:#.#: [1af4:1044] type 00 class 0x00ff00",
      "pci 0000:00:#.#: [1af4:1045] type 00 class 0x00ff00",
      "pci 0000:00:#.#: [1af4:1052] type 00 class 0x09#",
      "pci 0000:00:#.#: [1af4:1053] type 00 class 0x078000",
      "pci 0000:00:#.#: BAR 4 [mem #-#]")
    + KnownLine.sometimes(
      "the machine's devices: virtio, by the numbers of their kinds",
      "pci 0000:00:#.#: [1af4:1041] type 00 class 0x020000",
      "pci 0000:00:#.#: [1af4:1059] type 00 class 0x040100")
    + KnownLine.always(
      "what Linux does about habits of the i440FX and PIIX3",
      "pci 0000:00:01.0: PIIX3: Enabling Passive Release",
      "pci 0000:00:00.0: Limiting direct PCI/PCI transfers")
    + KnownLine.sometimes(
      "what Linux does about habits of the i440FX and PIIX3",
      "pci 0000:00:01.0: Activating ISA DMA hang workarounds")
    + KnownLine.sometimes(
      "these take more than 10 ms where kernels are interpreted",
      "pci 0000:00:#.#: quirk_*+0x0/# took # usecs",
      "pci 0000:00:02.0: pci_fixup_video+0x0/# took # usecs")
    + KnownLine.always(
      "devices that ACPI tells of",
      "pnp: PnP ACPI init",
      "pnp: PnP ACPI: found # devices",
      "system 00:#: [io  0x0600-0x063f] has been reserved")
    + KnownLine.always(
      "USB's drivers",
      "ACPI: bus type USB registered",
      "usbcore: registered new interface driver usbfs",
      "usbcore: registered new interface driver hub",
      "usbcore: registered new device driver usb")
}
