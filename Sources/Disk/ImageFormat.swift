/// How an image's bytes are laid out.
///
/// It is always said and never guessed from contents: a guest can write whatever it likes to
/// a raw image, the header of another format that names the host's files included.
public enum ImageFormat: String, Hashable, Sendable, CaseIterable {
  case raw
  case qcow2
}
