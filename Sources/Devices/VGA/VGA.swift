import DeviceModel

/// The standard VGA with Bochs VBE, as a PCI function (1234h:1111h).
///
/// `Machine` puts `ports` at 3B0h (48 bytes), `extensionPorts` at 1CEh (4 bytes)
/// and `window` at A0000h (128 KiB), and inserts `function` into the PCI host.
/// 15, 16, 24 and 32 bit modes are scanned out of `videoMemory`; everything else is
/// painted into `renderedSurface`.
package final class VGA: DisplayAdapter, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var pci: PCIFunction.State
    var registers: VGARegisters
    var vbe: BochsVBE
    var isBigEndian: Bool
    /// What the monitor prefers; states of before it had a viewer's size have none.
    var monitor: EDID.Mode?
  }

  /// Bytes that `renderedSurface` has at least. Sparse memory is fine: pages that
  /// no mode needs are never touched.
  package static let minimumSurfaceSize = RenderedSurface.minimumSize

  package let function: PCIFunction
  /// The VGA registers, ports 3B0h–3DFh.
  package let ports: any BusTarget
  /// The Bochs VBE index and data registers, ports 1CEh–1D1h.
  package let extensionPorts: any BusTarget
  /// Display memory as the CPU sees it at A0000h–BFFFFh.
  package let window: any BusTarget

  private let core: VGACore
  private let videoMemory: any SharedBytes
  private let optionROM: [UInt8]
  /// BAR 2, for machines that map it themselves.
  package let registerBlock: any BusTarget

  /// - Parameters:
  ///   - videoMemory: VRAM, a power of two of at least 1 MiB. Its contents are kept
  ///     by `Machine`, also in saved states.
  ///   - optionROM: the VGA BIOS, or empty for none.
  package init(
    videoMemory: any SharedBytes, renderedSurface: any SharedBytes, clock: any DeviceClock,
    optionROM: [UInt8] = [], state: State? = nil
  ) throws(VGAError) {
    guard let memory = VideoMemory(videoMemory) else {
      throw VGAError(
        kind: .videoMemory,
        context: "VGA: \(videoMemory.bytes.count) bytes of video memory cannot be used;"
          + " give it a power of two of at least 1 MiB")
    }
    guard let surface = RenderedSurface(renderedSurface) else {
      throw VGAError(
        kind: .surface,
        context: "VGA: a rendered surface of \(renderedSurface.bytes.count) bytes is too small;"
          + " give it \(Self.minimumSurfaceSize)")
    }
    if let state, state.version != 1 || !state.registers.isWellFormed {
      throw VGAError(
        kind: .state, context: "VGA: the saved state is damaged or of another version; boot anew")
    }
    core = VGACore(memory: memory, surface: surface, clock: clock, state: state)
    ports = VGAPorts(core)
    extensionPorts = VBEPorts(core)
    window = VGAWindow(core)
    let registers = VGARegisterBlock(core)
    registerBlock = registers
    function = PCIFunction(
      name: "VGA",
      identity: PCIIdentity(
        vendor: 0x1234, device: 0x1111, revision: 2,
        classCode: 0x03_0000))
    self.videoMemory = videoMemory
    self.optionROM = optionROM
    addMemory(to: function)
    function.addBAR(2, size: 4096, .memory(registerBlock))
    function.restore(state?.pci)
  }

  /// Makes video memory and BIOS those of another function, which then is the one to insert
  /// into the PCI host: a card that is more than a VGA.
  package func addMemory(to function: PCIFunction) {
    function.addBAR(
      0, size: UInt64(videoMemory.bytes.count), prefetchable: true, .videoMemory(videoMemory))
    if !optionROM.isEmpty { function.addROM(optionROM) }
  }

  package func saveState() -> State { core.saveState(pci: function.saveState()) }

  package func reset() {
    core.reset()
    function.reset()
  }

  /// A monitor of this size, or the nearest that half of video memory has room for, as drivers
  /// want two pictures' worth. They find it when they start: no register tells them of another
  /// monitor.
  package func resize(width: Int, height: Int) { core.resizeMonitor(width, height) }

  package func refresh(dirtyVideoMemory: DirtyPages) -> ScanoutUpdate {
    core.refresh(dirtyVideoMemory: dirtyVideoMemory)
  }

  package var onNextAccess: (() -> Void)? {
    get { core.onNextAccess }
    set { core.onNextAccess = newValue }
  }
}

/// Why a display adapter could not be built.
package struct VGAError: Error, CustomStringConvertible, Sendable {
  package enum Kind: Hashable, Sendable { case videoMemory, surface, state }

  package let kind: Kind
  package let context: String

  package var description: String { context }
}
