import Devices

/// What a guest, and partly a viewer, may do to input, storage, sound, USB and virtio devices.
let inputAndStorageTargets: [String: FuzzTarget] = [
  "i8042": { bytes, count in
    precondition(InputFuzzing.run(input(bytes, count)).linesAgree, "both lines were up")
  },
  "ac97": { bytes, count in
    precondition(AC97Fuzzing.run(input(bytes, count)), "the controller went astray")
  },
  "ide": { bytes, count in
    precondition(StorageFuzzing.run(input(bytes, count)), "a drive did not recover")
  },
  "usb": { bytes, count in
    precondition(XHCIFuzzing.run(input(bytes, count)), "the controller did not recover")
  },
  "virtio-blk": { bytes, count in
    precondition(VirtioFuzzing.run(input(bytes, count)), "the disk did not recover")
  },
  "uart": { bytes, count in runChipset(.serial, bytes, count) },
  "rtc": { bytes, count in runChipset(.clock, bytes, count) },
  "acpi-pm": { bytes, count in runChipset(.powerManagement, bytes, count) },
  "system-control": { bytes, count in runChipset(.systemControl, bytes, count) },
  "pci": { bytes, count in runChipset(.pci, bytes, count) },
  "virtio-rng": { bytes, count in runCard([0], bytes, count) },
  "virtio-input": { bytes, count in runCard([1, 2], bytes, count) },
  "virtio-net": { bytes, count in runCard([3, 9], bytes, count) },
  "virtio-balloon": { bytes, count in runCard([4], bytes, count) },
  "virtio-console": { bytes, count in runCard([5], bytes, count) },
  "virtio-snd": { bytes, count in runCard([6], bytes, count) },
  "virtio-gpu": { bytes, count in runCard([7], bytes, count) },
  "virtio-vsock": { bytes, count in runCard([8], bytes, count) },
]

private func runChipset(
  _ kind: ChipsetFuzzing.Kind, _ bytes: UnsafePointer<UInt8>?, _ count: Int
) {
  precondition(ChipsetFuzzing.run(kind, input(bytes, count)), "a device was not as it was saved")
}

/// - Parameter kinds: of which the input's first byte says one, if it can.
private func runCard(_ kinds: [UInt8], _ bytes: UnsafePointer<UInt8>?, _ count: Int) {
  let program = input(bytes, count)
  let kind = kinds.first { $0 == program.first } ?? kinds[0]
  precondition(
    VirtioCardsFuzzing.run([kind] + program.dropFirst()), "the device went astray")
}
