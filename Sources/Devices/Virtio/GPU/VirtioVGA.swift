import DeviceModel

/// A graphics card that is both: a standard VGA until the guest's driver shows a picture
/// on the virtio card, and again after that was reset.
package final class VirtioVGA: DisplayAdapter {
  package let vga: VGA
  package let gpu: VirtioGPU
  /// See `DisplayAdapter`.
  package var onNextAccess: (() -> Void)? {
    didSet {
      vga.onNextAccess = onNextAccess == nil ? nil : { [unowned self] in accessed() }
    }
  }

  /// Writes to video memory went unseen while the other picture was shown.
  private var missesWrites = false

  package init(_ vga: VGA, _ gpu: VirtioGPU) {
    self.vga = vga
    self.gpu = gpu
    gpu.onChange = { [unowned self] in accessed() }
  }

  private func accessed() {
    guard let tell = onNextAccess else { return }
    onNextAccess = nil
    tell()
  }

  package func refresh(dirtyVideoMemory: DirtyPages) -> ScanoutUpdate {
    if let update = gpu.takeUpdate() {
      missesWrites = true
      return update
    }
    guard missesWrites else { return vga.refresh(dirtyVideoMemory: dirtyVideoMemory) }
    missesWrites = false
    return vga.refresh(
      dirtyVideoMemory: DirtyPages(
        pageCount: dirtyVideoMemory.words.count * 64, allDirty: true))
  }
}
