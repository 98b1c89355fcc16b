import Devices
import LinuxSystem

extension Board {
  /// The chip with UEFI's variables, which ends where the firmware's own begins.
  static func placeFlash(
    _ boot: BootMedium, _ memory: MachineMemory, _ addresses: AddressSpace,
    _ state: FlashMemory.State?
  ) throws -> FlashMemory? {
    guard let store = boot.variables, let rom = boot.rom else { return nil }
    let size = UInt64(store.bytes.count)
    let address = PhysicalMap.fourGiB - UInt64(rom.bytes.count) - size
    var isShown = false
    store.onReadsArray = { [unowned store, memory] on in
      guard on != isShown else { return }
      // Where KVM refuses, reads leave the guest and the chip answers them as well.
      guard (try? memory.setFlash(on ? store.bytes : nil, at: address)) != nil else { return }
      isShown = on
    }
    let flash = FlashMemory(array: store, state: state)
    try addresses.memory.map(flash, name: "UEFI variables", at: address, size: size)
    return flash
  }
}
