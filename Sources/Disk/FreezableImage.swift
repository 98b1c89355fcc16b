import LinuxSystem

/// A disk's image that others can be based on, once nobody writes it any more.
protocol FreezableImage: DiskImage {
  /// The image's own file, locked for writing; `nil` when it is in something else.
  var file: FileDescriptor? { get }

  /// Makes all that was asked for durable and leaves nothing in the file to be repaired.
  /// Nothing is under way, nor asked for until it returns.
  func makeWhole() throws(DiskError)

  /// The whole image as it reads through another descriptor of its file.
  func layer(of file: FileDescriptor) throws(DiskError) -> any ImageLayer

  /// Ends the threads; the file stays locked as it is.
  func retire()
}

extension RawImage: DiskImage {
  public var layers: [LayerDescription] { [LayerDescription(path: path, format: .raw)] }
}

extension RawImage: FreezableImage {
  var file: FileDescriptor? { imageFile.descriptor }

  func makeWhole() throws(DiskError) { try synchronize() }

  func layer(of file: FileDescriptor) throws(DiskError) -> any ImageLayer {
    try RawLayer(path: path, storage: FileStorage(file))
  }
}

extension Qcow2Disk: FreezableImage {
  var file: FileDescriptor? { (image.storage as? FileStorage)?.descriptor }

  func makeWhole() throws(DiskError) {
    try synchronize()
    try image.makeWhole()
  }

  func layer(of file: FileDescriptor) throws(DiskError) -> any ImageLayer {
    try Qcow2Image(
      path: path, storage: FileStorage(file), isReadOnly: true, backing: image.backing)
  }
}
