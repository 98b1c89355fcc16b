extension KernelLog {
  /// What only options of the debug variant have a kernel say.
  static let debugging =
    KnownLine.sometimes(
      "virtio_ring.c with -DDEBUG tells of each buffer and interrupt",
      "Added buffer head # to #",
      "Added buffer head # to (____ptrval____)",
      "No more buffers in queue",
      "virtqueue callback for # (#)",
      "virtqueue callback for (____ptrval____) (#)",
      "virtqueue callback for (____ptrval____) ((____ptrval____))")
    + KnownLine.sometimes(
      "queues share interrupts, and DEBUG_SHIRQ has one come to each handler that is there anew",
      "virtqueue interrupt with no work for #",
      "virtqueue interrupt with no work for (____ptrval____)")
    + KnownLine.sometimes(
      "PCI_DEBUG tells how the bus is looked through",
      "pci_bus 0000:00: scanning bus",
      "pci_bus 0000:00: fixups for bus",
      "pci_bus 0000:00: bus scan returning with max=00",
      "pci 0000:00:#.#: BAR #: reserving [mem #-# flags #] (d=#, p=#)",
      "pci 0000:00:#.#: BAR #: reserving [io  #-# flags #] (d=#, p=#)",
      "pci 0000:00:01.1: BAR #: reserving [io  # flags #] (d=#, p=#)")
    + KnownLine.sometimes(
      "PCI_DEBUG tells what drivers have done to their devices' command registers",
      "virtio-pci 0000:00:#.#: enabling bus mastering",
      "ata_piix 0000:00:01.1: enabling bus mastering",
      "xhci_hcd 0000:00:0e.0: enabling bus mastering",
      "xhci_hcd 0000:00:0e.0: enabling Mem-Wr-Inval")
    + KnownLine.sometimes(
      "PCI_DEBUG has vgaarb tell of each change to any device",
      "pci 0000:00:#.#: vgaarb: pci_notify",
      "virtio-pci 0000:00:#.#: vgaarb: pci_notify",
      "ata_piix 0000:00:01.1: vgaarb: pci_notify",
      "xhci_hcd 0000:00:0e.0: vgaarb: pci_notify")
    + KnownLine.sometimes(
      "PROVE_RCU tries it when it begins",
      "Running RCU self tests")

  /// The same, where it reads like trouble or has no level, and so a warning's.
  static let debuggingTroubles =
    KnownLine.sometimes(
      "DMA_API_DEBUG says that it is there, and what room it has",
      "DMA-API: preallocated # debug entries",
      "DMA-API: debugging enabled by kernel config")
    + KnownLine.sometimes(
      "an x86 kernel asks ACPI for a device's interrupt when its driver enables it",
      "virtio-pci 0000:00:#.#: runtime IRQ mapping not provided by arch",
      "ata_piix 0000:00:01.1: runtime IRQ mapping not provided by arch",
      "xhci_hcd 0000:00:0e.0: runtime IRQ mapping not provided by arch")
    + KnownLine.sometimes(
      "PROVE_LOCKING says that it is there, and what room it has",
      "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
      "... MAX_LOCKDEP_SUBCLASSES:  #", "... MAX_LOCK_DEPTH:          #",
      "... MAX_LOCKDEP_KEYS:        #", "... CLASSHASH_SIZE:          #",
      "... MAX_LOCKDEP_ENTRIES:     #", "... MAX_LOCKDEP_CHAINS:      #",
      "... CHAINHASH_SIZE:          #", " memory used by lock dependency info: # kB",
      " memory used for stack traces: # kB", " per task-struct memory footprint: # bytes")
}
