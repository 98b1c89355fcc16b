import DeviceModel

/// What the keys of a keyboard mean.
public enum KeyboardLayout: String, CaseIterable, Sendable {
  case enUS = "en-us"
  case german = "de"
  case french = "fr"
}
